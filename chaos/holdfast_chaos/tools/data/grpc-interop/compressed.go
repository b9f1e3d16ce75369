package main

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

type wireKey struct{}

// Whether the message of a call that was read last came compressed. Messages of one call are read one after the other.
type wire struct{ compressed bool }

// Tells handlers whether requests were compressed: as a stats.Handler it hears of each before its reader gets it.
type compression struct{}

func (compression) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, wireKey{}, &wire{})
}

func (compression) HandleRPC(ctx context.Context, told stats.RPCStats) {
	if read, ok := told.(*stats.InPayload); ok {
		ctx.Value(wireKey{}).(*wire).compressed = read.CompressedLength != read.Length
	}
}

func (compression) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (compression) HandleConn(context.Context, stats.ConnStats) {}

type expecting interface{ GetExpectCompressed() *testgrpc.BoolValue }

// Refuses a request that says it is compressed, or that it is not, and came otherwise.
func asExpected(ctx context.Context, request any) error {
	expected, ok := request.(expecting)
	if !ok || expected.GetExpectCompressed() == nil {
		return nil
	}
	if wanted, came := expected.GetExpectCompressed().GetValue(), ctx.Value(wireKey{}).(*wire).compressed; wanted != came {
		return status.Errorf(codes.InvalidArgument, "compressed is %t, and %t was expected", came, wanted)
	}
	return nil
}

func (compression) unary(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if err := asExpected(ctx, request); err != nil {
		return nil, err
	}
	return handler(ctx, request)
}

func (compression) stream(service any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return handler(service, expectingStream{stream})
}

type expectingStream struct{ grpc.ServerStream }

func (stream expectingStream) RecvMsg(message any) error {
	if err := stream.ServerStream.RecvMsg(message); err != nil {
		return err
	}
	return asExpected(stream.Context(), message)
}
