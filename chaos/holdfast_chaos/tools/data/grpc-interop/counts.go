package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"net/http"
	"sort"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // requests may be compressed
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// A call as it was handled: by the labels that grpc-ecosystem's metrics have.
type handled struct {
	kind, service, method string
	code                  codes.Code
}

// Counts of calls handled, and a digest of all unary requests in the order in which their handlers began.
type counts struct {
	mutex    sync.Mutex
	handled  map[handled]int
	sequence hash.Hash
	begun    int
}

func newCounts() *counts {
	return &counts{handled: map[handled]int{}, sequence: sha256.New()}
}

func (counts *counts) unary(
	ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (any, error) {
	counts.begin(info.FullMethod, request.(proto.Message))
	if wanted, ok := request.(*testgrpc.SimpleRequest); ok && wanted.GetResponseCompressed().GetValue() {
		if err := grpc.SetSendCompressor(ctx, "gzip"); err != nil {
			return nil, status.Error(codes.FailedPrecondition, err.Error())
		}
	}
	answer, err := handler(ctx, request)
	counts.end("unary", info.FullMethod, err)
	return answer, err
}

func (counts *counts) stream(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	kind := "server_stream"
	if info.IsClientStream {
		kind = "client_stream"
		if info.IsServerStream {
			kind = "bidi_stream"
		}
	}
	err := handler(service, stream)
	counts.end(kind, info.FullMethod, err)
	return err
}

func (counts *counts) begin(method string, request proto.Message) {
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(request)
	if err != nil {
		panic(err) // it was parsed from bytes
	}
	counts.mutex.Lock()
	defer counts.mutex.Unlock()
	fmt.Fprintf(counts.sequence, "%s %d ", method, len(body))
	counts.sequence.Write(body)
	counts.begun++
}

func (counts *counts) end(kind, method string, err error) {
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	counts.mutex.Lock()
	defer counts.mutex.Unlock()
	counts.handled[handled{kind, service, name, status.Code(err)}]++
}

// ServeHTTP writes the counts as Prometheus reads them; the digest is a label of a metric that counts what is in it.
func (counts *counts) ServeHTTP(writer http.ResponseWriter, _ *http.Request) {
	counts.mutex.Lock()
	lines := make([]string, 0, len(counts.handled))
	for key, count := range counts.handled {
		lines = append(lines, fmt.Sprintf("grpc_server_handled_total{grpc_type=%q,grpc_service=%q,grpc_method=%q,grpc_code=%q} %d\n",
			key.kind, key.service, key.method, key.code.String(), count))
	}
	digest, begun := hex.EncodeToString(counts.sequence.Sum(nil)), counts.begun
	counts.mutex.Unlock()
	sort.Strings(lines)
	writer.Header().Set("Content-Type", "text/plain; version=0.0.4")
	fmt.Fprint(writer, "# HELP grpc_server_handled_total Calls handled, by code.\n# TYPE grpc_server_handled_total counter\n")
	fmt.Fprint(writer, strings.Join(lines, ""))
	fmt.Fprint(writer, "# HELP interop_requests Unary requests in the digest of their sequence.\n# TYPE interop_requests gauge\n")
	fmt.Fprintf(writer, "interop_requests{sequence=%q} %d\n", digest, begun)
}
