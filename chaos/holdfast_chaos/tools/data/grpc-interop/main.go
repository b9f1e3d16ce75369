// Command grpc-interop-server is grpc-go's interop test server with health, reflection and metrics, for tests and benchmarks.
// It prints one JSON line, {"grpc": "HOST:PORT", "http": "HOST:PORT"}, once it serves, and ends with its standard input.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/reflection"
)

// Raised with what it can do, so that one built earlier is built anew; tools/table.py asks for it.
const revision = 2

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "where to serve gRPC")
	metrics := flag.String("http", "127.0.0.1:0", "where to serve /metrics")
	cert := flag.String("cert", "", "PEM file of the server's certificate; TLS if given")
	key := flag.String("key", "", "PEM file of its key")
	version := flag.Bool("version", false, "print the version of grpc-go and end")
	flag.Parse()
	if *version {
		fmt.Printf("grpc-interop-server r%d of grpc-go %s\n", revision, grpc.Version)
		return
	}
	counts := newCounts()
	options := []grpc.ServerOption{
		grpc.StatsHandler(compression{}),
		grpc.ChainUnaryInterceptor(counts.unary, compression{}.unary),
		grpc.ChainStreamInterceptor(counts.stream, compression{}.stream),
		grpc.MaxRecvMsgSize(16 << 20),
	}
	if *cert != "" {
		credential, err := credentials.NewServerTLSFromFile(*cert, *key)
		if err != nil {
			log.Fatalf("cannot use %s and %s for TLS: %v", *cert, *key, err)
		}
		options = append(options, grpc.Creds(credential))
	}
	server := grpc.NewServer(options...)
	testgrpc.RegisterTestServiceServer(server, interop.NewTestServer())
	healthgrpc.RegisterHealthServer(server, health.NewServer())
	reflection.Register(server)

	calls, pages := bind(*listen), bind(*metrics)
	http.Handle("/metrics", counts)
	go func() { log.Fatal(http.Serve(pages, nil)) }()
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	ready := map[string]string{"grpc": calls.Addr().String(), "http": pages.Addr().String()}
	if err := json.NewEncoder(os.Stdout).Encode(ready); err != nil {
		log.Fatal(err)
	}
	log.Fatal(server.Serve(calls))
}

func bind(address string) net.Listener {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		log.Fatalf("cannot listen on %s: %v", address, err)
	}
	return listener
}
