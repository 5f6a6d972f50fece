//go:build linux

// Command farline is a line to a server that is far away: a TCP proxy that carries bytes as slowly and as late as the
// real one would. Each connection has -bandwidth in each direction, whatever the delay is; all connections together
// have -ceiling in each direction. A connection is made after one round trip. With -loss, the line loses the connection
// that carries the last byte of every so many MiB: both ends see a reset.
//
// It prints its address on the loopback interface.
package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"time"
)

const (
	megabyte = 1e6
	mebibyte = 1 << 20
)

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	upstream := flag.String("upstream", "", "host:port of the server")
	bandwidth := flag.Float64("bandwidth", 0, "MB/s of each connection")
	delay := flag.Duration("delay", 0, "time there and back, such as 20ms")
	ceiling := flag.Float64("ceiling", 0, "MB/s of all connections together, 0 for any number")
	loss := flag.Int64("loss", 0, "MiB after which a connection is lost, 0 for none")
	flag.Parse()
	log.Fatal(run(*upstream, *bandwidth*megabyte, *delay, *ceiling*megabyte, *loss*mebibyte))
}

// run carries connections until it fails.
func run(upstream string, bandwidth float64, delay time.Duration, ceiling float64, loss int64) error {
	if upstream == "" || bandwidth <= 0 {
		return errors.New("-upstream and -bandwidth are needed")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	return NewLine(upstream, bandwidth, delay, ceiling, loss).Serve(listener)
}
