// Command etcd is etcd's server. Its own module cannot be installed with "go install", for it holds replace directives.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
