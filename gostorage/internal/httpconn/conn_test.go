package httpconn

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/task"
)

// held gives both ends of a connection; ours has another descriptor, as after a fork.
func held(t *testing.T, address string) (ours *conn, theirs *net.TCPConn) {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Skip(err)
	}
	defer func() { _ = listener.Close() }()
	ours, err = connecting(netip.MustParseAddrPort(listener.Addr().String()), 200*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = accepted.Close() })
	if err := ours.connected(t.Context()); err != nil {
		t.Fatal(err)
	}
	other, err := unix.FcntlInt(uintptr(ours.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(other) })
	theirs = accepted.(*net.TCPConn)
	if err := theirs.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

// large in bytes is more than the system holds for a server that does not read.
const large = 64 << 20

var loopbacks = []string{"127.0.0.1:0", "[::1]:0"}

func TestWhatWasGivenUpGoesWithTheConnection(t *testing.T) {
	for _, address := range loopbacks {
		ours, theirs := held(t, address)
		if left, err := ours.write([][]byte{make([]byte, large)}); err != errStalled || len(left) == 0 {
			t.Fatalf("%s: a server that does not read: %v", address, err)
		}
		if err := ours.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, theirs); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: the server hears %v", address, err)
		}
	}
}

func TestWhatTLSHasNotSentIsGivenUp(t *testing.T) {
	for _, address := range loopbacks {
		ours, theirs := held(t, address)
		_, _ = ours.Write(make([]byte, large))
		if err := ours.flush(); err != errStalled || len(ours.out) == 0 {
			t.Fatalf("%s: a server that does not read: %v", address, err)
		}
		if _, err := io.CopyN(io.Discard, theirs, int64(large-len(ours.out))); err != nil {
			t.Fatal(err)
		}
		if err := ours.Close(); err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, theirs); n > 0 || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: the server gets %d bytes more, and hears %v", address, n, err)
		}
	}
}

func TestAClosedConnectionIsOverForAllWhoHoldIt(t *testing.T) {
	for _, address := range loopbacks {
		ours, theirs := held(t, address)
		if left, err := ours.write([][]byte{[]byte("a request")}); len(left) > 0 || err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(theirs, make([]byte, 9)); err != nil {
			t.Fatal(err)
		}
		_, _ = ours.Write([]byte("bye")) // as TLS says it
		for until := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			if n, err := unix.IoctlGetInt(ours.fd, unix.SIOCOUTQ); err != nil || n == 0 || time.Now().After(until) {
				break
			}
		}
		if err := ours.Close(); err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(theirs)
		if string(text) != "bye" || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the server hears %q, %v", address, text, err)
		}
	}
}

// What has no room in the system does not keep the thread of who asks either.
func TestWritingInline(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	opened, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := blocking(opened, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	data := make([]byte, 32<<20)
	var left [][]byte
	writing := task.New(t.Context(), func(ctx context.Context) {
		c.thread = task.ThreadOf(ctx)
		left, err = c.write([][]byte{data})
	})
	writing.Start(true)
	if _, ended, failed := writing.Poll(); ended || failed != nil {
		t.Fatal("the system takes all of it", failed)
	}
	got := make(chan int64)
	go func() {
		accepted, err := listener.Accept()
		if err != nil {
			t.Error(err)
		}
		n, _ := io.Copy(io.Discard, io.LimitReader(accepted, int64(len(data))))
		_ = accepted.Close()
		got <- n
	}()
	for {
		fd, ended, failed := writing.Poll()
		if failed != nil {
			t.Fatal(failed)
		}
		if ended {
			break
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
	}
	if n := <-got; n != int64(len(data)) || left != nil || err != nil {
		t.Errorf("%d bytes came, %d pieces are left, %v", n, len(left), err)
	}
}
