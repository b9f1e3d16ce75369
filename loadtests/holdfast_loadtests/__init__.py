"""Load: a seeded schedule of gRPC calls, each measured from the moment it was due."""
