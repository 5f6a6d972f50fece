//go:build linux

package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// No test knows how fast this machine is: they compare times with each other. The bounds are far from
// the ratios that are expected, and the times are long enough for a busy machine to change the ratios little.

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener
}

// far is a line to a server that treats each connection with `serve`.
func far(t *testing.T, line *Line, serve func(*net.TCPConn)) (address string) {
	t.Helper()
	server := listen(t)
	go func() {
		for {
			conn, err := server.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn.(*net.TCPConn))
			}()
		}
	}()
	line.upstream = server.Addr().String()
	return before(t, line)
}

// before takes connections for the line.
func before(t *testing.T, line *Line) (address string) {
	t.Helper()
	listener := listen(t)
	go line.Serve(listener)
	return listener.Addr().String()
}

func dial(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.TCPConn)
}

// swallow answers with one byte when all has come.
func swallow(conn *net.TCPConn) {
	io.Copy(io.Discard, conn)
	conn.Write([]byte{1})
}

func echo(conn *net.TCPConn) { io.Copy(conn, conn) }

// source sends whatever is asked for: bytes to spare.
func source(conn *net.TCPConn) {
	conn.Read(make([]byte, 1))
	io.Copy(conn, endless{})
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// upload gives the time that `size` bytes take until the server has them and says so.
func upload(t *testing.T, address string, size int) time.Duration {
	t.Helper()
	conn := dial(t, address)
	begin := time.Now()
	if _, err := conn.Write(make([]byte, size)); err != nil {
		t.Error(err)
	}
	conn.CloseWrite()
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
	return time.Since(begin)
}

// download gives the time that `size` bytes of a source take.
func download(t *testing.T, address string, size int) time.Duration {
	t.Helper()
	conn := dial(t, address)
	begin := time.Now()
	conn.Write([]byte{1})
	if _, err := io.CopyN(io.Discard, conn, int64(size)); err != nil {
		t.Error(err)
	}
	return time.Since(begin)
}

// roundTrip gives the time that one byte takes there and back.
func roundTrip(t *testing.T, conn *net.TCPConn) time.Duration {
	t.Helper()
	begin := time.Now()
	if _, err := conn.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return time.Since(begin)
}

// atOnce gives the times of several transfers side by side, and the time of all together.
func atOnce(number int, transfer func() time.Duration) (times []time.Duration, all time.Duration) {
	times = make([]time.Duration, number)
	var group sync.WaitGroup
	begin := time.Now()
	for i := range times {
		group.Go(func() { times[i] = transfer() })
	}
	group.Wait()
	return times, time.Since(begin)
}

// expect checks that `a` is between `least` and `most` times `b`.
func expect(t *testing.T, what string, a, b time.Duration, least, most float64) {
	t.Helper()
	ratio := float64(a) / float64(b)
	t.Logf("%s: %v and %v, %.2f", what, a, b, ratio)
	if ratio < least || ratio > most {
		t.Errorf("%s: %v is %.2f times %v, expected %.2f to %.2f", what, a, ratio, b, least, most)
	}
}

func TestBandwidth(t *testing.T) {
	t.Parallel()
	for _, direction := range []struct {
		name     string
		serve    func(*net.TCPConn)
		transfer func(*testing.T, string, int) time.Duration
	}{{"up", swallow, upload}, {"down", source, download}} {
		t.Run(direction.name, func(t *testing.T) {
			t.Parallel()
			slow := far(t, NewLine("", 5*megabyte, 0, 0, 0), direction.serve)
			fast := far(t, NewLine("", 20*megabyte, 0, 0, 0), direction.serve)
			one := direction.transfer(t, slow, 3*megabyte)
			expect(t, "a quarter of the bandwidth", one, direction.transfer(t, fast, 3*megabyte), 2, 8)
			_, four := atOnce(4, func() time.Duration { return direction.transfer(t, slow, 3*megabyte) })
			expect(t, "four connections beside one", four, one, 0.5, 2.5)
		})
	}
}

// What a connection sends does not slow down what it receives.
func TestBothDirectionsAtOnce(t *testing.T) {
	t.Parallel()
	up := far(t, NewLine("", 5*megabyte, 0, 0, 0), swallow)
	one := upload(t, up, 3*megabyte)
	conn := dial(t, far(t, NewLine("", 5*megabyte, 0, 0, 0), echo))
	begin := time.Now()
	go func() {
		conn.Write(make([]byte, 3*megabyte))
		conn.CloseWrite()
	}()
	if n, err := io.Copy(io.Discard, conn); n != 3*megabyte || err != nil {
		t.Fatal(n, err)
	}
	expect(t, "there and back beside there", time.Since(begin), one, 0.5, 1.8)
}

func TestLatency(t *testing.T) {
	t.Parallel()
	near := dial(t, far(t, NewLine("", 50*megabyte, 100*time.Millisecond, 0, 0), echo))
	distant := dial(t, far(t, NewLine("", 50*megabyte, 400*time.Millisecond, 0, 0), echo))
	first := roundTrip(t, distant)
	later := roundTrip(t, distant)
	expect(t, "the first round trip, which makes the connection", first, later, 1.5, 2.5)
	roundTrip(t, near)
	expect(t, "four times the delay", later, roundTrip(t, near), 2, 6)
}

func TestBandwidthDoesNotDependOnTheDelay(t *testing.T) {
	t.Parallel()
	const size = 4 * megabyte
	near := far(t, NewLine("", 5*megabyte, 0, 0, 0), swallow)
	distant := far(t, NewLine("", 5*megabyte, 80*time.Millisecond, 0, 0), swallow)
	expect(t, "far beside near", upload(t, distant, size), upload(t, near, size), 0.5, 2)
}

func TestCeiling(t *testing.T) {
	t.Parallel()
	free := far(t, NewLine("", 5*megabyte, 0, 0, 0), source)
	shared := far(t, NewLine("", 5*megabyte, 0, 5*megabyte, 0), source)
	transfer := func(address string) func() time.Duration {
		return func() time.Duration { return download(t, address, 2*megabyte) }
	}
	one := transfer(shared)()
	expect(t, "one connection below the ceiling", one, transfer(free)(), 0.5, 2)
	times, four := atOnce(4, transfer(shared))
	expect(t, "four connections that share the ceiling", four, one, 2.5, 8)
	for _, each := range times {
		expect(t, "a fair share", each, four, 0.6, 1)
	}
}

func TestLoss(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	address := far(t, NewLine("", 100*megabyte, time.Millisecond, 0, size), source)
	lost := 0
	var left int64 = 4 * size
	for left > 0 && lost < 12 {
		conn := dial(t, address)
		conn.Write([]byte{1})
		n, err := io.CopyN(io.Discard, conn, left)
		left -= n
		if err != nil {
			lost++
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Fatalf("lost with %v, expected a reset", err)
			}
			if n >= size {
				t.Errorf("lost after %d bytes, expected fewer than %d", n, size)
			}
		}
	}
	// A loss may take bytes in the kernel too, so that more than 4 MiB have passed.
	if lost < 4 || left > 0 {
		t.Errorf("%d connections were lost, and %d bytes are missing of 4 MiB with a loss every MiB", lost, left)
	}
}

func TestLossOfAnUpload(t *testing.T) {
	t.Parallel()
	address := far(t, NewLine("", 100*megabyte, time.Millisecond, 0, 1<<20), swallow)
	conn := dial(t, address)
	_, err := conn.Write(make([]byte, 8<<20))
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Fatalf("the connection ended with %v, expected a reset", err)
	}
}

func TestHalfClose(t *testing.T) {
	t.Parallel()
	sent := bytes.Repeat([]byte("half close "), 50_000)
	conn := dial(t, far(t, NewLine("", 50*megabyte, 10*time.Millisecond, 0, 0), func(conn *net.TCPConn) {
		all, _ := io.ReadAll(conn) // until the end of what the client sends
		conn.Write(all)
	}))
	go func() {
		conn.Write(sent)
		conn.CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d bytes came back of %d, and %v", len(got), len(sent), err)
	}
}

func TestAResetPassesOn(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	conn := dial(t, far(t, NewLine("", 50*megabyte, 10*time.Millisecond, 0, 0), func(conn *net.TCPConn) {
		conn.Read(make([]byte, 1))
		conn.Write([]byte{1})
		_, err := conn.Read(make([]byte, 1))
		ended <- err
	}))
	roundTrip(t, conn)
	reset(conn)
	if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("the server saw %v, expected a reset", err)
	}
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	nobody := listen(t)
	nobody.Close()
	conn := dial(t, before(t, NewLine(nobody.Addr().String(), 50*megabyte, 20*time.Millisecond, 0, 0)))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("the client saw %v, expected a reset", err)
	}
}

// A receiver that does not read stops the sender, and gets everything when it reads again.
func TestBackpressure(t *testing.T) {
	t.Parallel()
	const size = 64 << 20
	read := make(chan struct{})
	conn := dial(t, far(t, NewLine("", 1000*megabyte, 2*time.Millisecond, 0, 0), func(conn *net.TCPConn) {
		conn.SetReadBuffer(slack)
		<-read
		n, _ := io.Copy(io.Discard, conn)
		if n == size {
			conn.Write([]byte{1})
		}
	}))
	conn.SetWriteBuffer(slack)
	conn.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	n, err := conn.Write(make([]byte, size))
	if !errors.Is(err, os.ErrDeadlineExceeded) || n > size/4 {
		t.Fatalf("%d bytes were taken, and %v", n, err)
	}
	close(read)
	conn.SetWriteDeadline(time.Time{})
	if _, err := conn.Write(make([]byte, size-n)); err != nil {
		t.Fatal(err)
	}
	conn.CloseWrite()
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatalf("not everything has come: %v", err)
	}
}
