"""What each rpc does: plain async handlers, and the transport that gives them to gRPC."""
