// Package gostorage is what Python sees of the Go side: flat functions over numbers, strings and addresses.
//
// Every function answers within 250 ms, so that Python sees its signals; long work goes on behind Start and Wait.
// Errors cross in one form (object.Wire). No function keeps an address after it has returned, but Lend and Read, which say
// by Returned when they are done with it.
package gostorage

import (
	"os"
	"runtime"
	"strings"
	"time"
	"unsafe"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/calls"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/task"
)

var table = calls.NewTable()

// spare are the processors that Go has beyond those of the machine. A thread of Python counts as one while it is inside, and
// until Go's monitor takes that back, which may be a millisecond later (_loader._SLACK). Where all are taken calls wait for
// each other: with one to spare, 16 threads had two thirds of the small calls a second that they have with six.
const spare = 6

func init() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + spare)
	}
	// The first timer opens what the runtime waits by. Where there are no descriptors for it, it ends the process: so it is
	// opened here, for which _loader._check_descriptors has seen some.
	time.AfterFunc(time.Hour, func() {}).Stop()
}

// guard turns a panic into an error, and any error into the form in which it crosses.
func guard(op string, err *error) {
	if r := recover(); r != nil {
		*err = object.Panicked(r)
	}
	if *err != nil && !strings.HasPrefix((*err).Error(), "E1|") {
		*err = object.Wire(op, "", *err)
	}
}

// memory is the n bytes at an address that Python gave for the time of this call.
func memory(address uintptr, n int64) ([]byte, error) {
	if address == 0 || n < 0 {
		return nil, object.Errorf(object.Internal, "no memory was given")
	}
	return unsafe.Slice(*(**byte)(unsafe.Pointer(&address)), n), nil
}

// Open makes a store from a configuration in JSON, under a number that the caller chooses; one that is there stays.
func Open(store int64, config string) (done bool, err error) {
	defer guard("open", &err)
	return true, table.Open(store, config)
}

// Close cancels what runs on a store and forgets it; an unknown store is fine.
func Close(store int64) (done bool, err error) {
	defer guard("close", &err)
	return true, table.Close(store)
}

// Start sets an operation going, on a key if there is one, under a number that the caller chooses, and answers as Wait does.
// Other arguments than the usual ones are in JSON. The n bytes at address are all that a short put gets, which are copied,
// or the room for what a get reads; with n -1 there are none, and those of a put are to come: then the answer is empty.
func Start(
	store int64, call int64, op string, key string, args string, address uintptr, n int64,
) (answer string, err error) {
	defer guard(op, &err)
	var given []byte
	if n >= 0 {
		if given, err = memory(address, n); err != nil {
			return "", err
		}
	}
	return table.Start(store, call, op, key, args, given)
}

// Write copies bytes into a put and gives how many it took within 100 ms.
func Write(call int64, address uintptr, n int64) (taken int64, err error) {
	defer guard("put", &err)
	data, err := memory(address, n)
	if err != nil {
		return 0, err
	}
	written, err := table.Write(call, data)
	return int64(written), err
}

// Lend gives a put one block of 256 KiB where it is, and gives how many bytes it took within 100 ms: 0 when there was no
// room, -1 when it has to be written. The memory must stay as it is until Returned gives the token, which comes in any
// case.
func Lend(call int64, token int64, address uintptr, n int64) (taken int64, err error) {
	defer guard("put", &err)
	data, err := memory(address, n)
	if err != nil {
		return 0, err
	}
	lent, err := table.Lend(call, token, data)
	return int64(lent), err
}

// Returned gives the token of memory that was lent and is not needed any more, or 0 when there is none. It is given again
// until it is said to be done with.
func Returned(done int64) (token int64, err error) {
	defer guard("put", &err)
	return table.Returned(done), nil
}

// Pull gives a put bytes of a file that is open for reading, and says how many it took within 100 ms: 0 when it can read
// no more, -1 when there was no room.
func Pull(call int64, fd int64, n int64) (taken int64, err error) {
	defer guard("put", &err)
	pulled, err := table.Pull(call, int(fd), int(n))
	return int64(pulled), err
}

// Finish lets a put or an assembly commit: all bytes have come. It answers as Wait does.
func Finish(call int64) (answer string, err error) {
	defer guard("put", &err)
	return table.Finish(call)
}

// Wait gives the result of a call: of an object its size and SHA-256, else JSON. While the call goes on that is an at sign
// and a descriptor, which can be read once there is news of it. An object that a get reads whole, and that is not larger than
// the n bytes at address, is there then.
func Wait(call int64, address uintptr, n int64) (answer string, err error) {
	defer guard("wait", &err)
	var room []byte
	if n > 0 {
		if room, err = memory(address, n); err != nil {
			return "", err
		}
	}
	return table.Wait(call, room)
}

// Impatient has calls go back as soon as they wait, for a thread that has other work then.
func Impatient() (done bool, err error) {
	defer guard("wait", &err)
	task.Impatient()
	return true, nil
}

// Progress gives how many bytes a call has moved.
func Progress(call int64) (moved int64, err error) {
	defer guard("progress", &err)
	return table.Progress(call)
}

// Cancel undoes a call, or closes the reader that it gave, and forgets it; an unknown number is fine.
func Cancel(call int64) (done bool, err error) {
	defer guard("cancel", &err)
	table.Cancel(call)
	return true, nil
}

// CancelAll undoes whatever runs and gives how many calls have not ended.
func CancelAll() (running int64, err error) {
	defer guard("cancel", &err)
	return int64(table.CancelAll()), nil
}

// Read fills memory from an open reader at an offset and gives the number of bytes, 0 at the end,
// and -1 when none have come yet. Unless token is 0, the m bytes at next are for what follows: they may be written to
// until the token is Returned.
func Read(reader, offset int64, address uintptr, n int64, next uintptr, m, token int64) (taken int64, err error) {
	defer guard("read", &err)
	into, err := memory(address, n)
	if err != nil {
		return 0, err
	}
	var ahead []byte
	if token != 0 {
		if ahead, err = memory(next, m); err != nil {
			return 0, err
		}
	}
	read, err := table.Read(reader, offset, into, ahead, token)
	return int64(read), err
}

// CheckKey gives the verdict on a key.
func CheckKey(key string) (legal bool, err error) {
	defer guard("key", &err)
	return true, object.CheckKey(key)
}

// Stats gives in JSON what is open, for tests that look for leaks.
func Stats() (counts string, err error) {
	defer guard("stats", &err)
	return table.Stats(), nil
}
