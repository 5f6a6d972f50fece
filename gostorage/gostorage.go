// Package gostorage is what Python sees of the Go side: flat functions over numbers, strings and addresses.
//
// Every function answers within 250 ms, so that Python sees its signals. Long work goes on behind Start and Wait.
// Errors cross in one form (object.Wire). No function keeps an address after it has returned, except Lend and Read:
// they keep it until Returned gives its token.
package gostorage

import (
	"hash/crc32"
	"os"
	"runtime"
	"strings"
	"time"
	"unsafe"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/buffers"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/calls"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/task"
)

var table = calls.NewTable()

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// spare is how many processors Go gets beyond those of the machine (docs/decisions.md): a thread of Python that is inside
// Go counts as one.
const spare = 6

func init() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + spare)
	}
	// The first timer opens the descriptors that the runtime waits with. If none is left, the runtime ends the process.
	// So the timer is made here: _loader._check_descriptors has seen that some are left.
	time.AfterFunc(time.Hour, func() {}).Stop()
}

// guard turns a panic into an error, and every error into the form in which errors cross to Python.
func guard(op string, err *error) {
	if r := recover(); r != nil {
		*err = object.Panicked(r)
	}
	if *err != nil && !strings.HasPrefix((*err).Error(), "E1|") {
		*err = object.Wire(op, "", *err)
	}
}

// memory gives the n bytes at an address that Python lends for the time of this call.
func memory(address uintptr, n int64) ([]byte, error) {
	if address == 0 || n < 0 {
		return nil, object.Errorf(object.Internal, "no memory was given")
	}
	return unsafe.Slice(*(**byte)(unsafe.Pointer(&address)), n), nil
}

// Open makes a store from a configuration in JSON, under a number that the caller chooses. A store that is open under
// this number stays.
func Open(store int64, config string) (done bool, err error) {
	defer guard("open", &err)
	return true, table.Open(store, config)
}

// Close cancels what runs on a store, and forgets the store. An unknown store is no error.
func Close(store int64) (done bool, err error) {
	defer guard("close", &err)
	return true, table.Close(store)
}

// SetBudget sets how many bytes of memory all transfers of the process share for their work ahead.
func SetBudget(bytes int64) (done bool, err error) {
	defer guard("budget", &err)
	buffers.Shared.SetBudget(bytes)
	return true, nil
}

// Start starts an operation, on a key if it has one, under a number that the caller chooses. It answers as Wait does.
// Further arguments are in args, as JSON. The n bytes at address are all bytes of a short put, which are copied, or the
// room for the bytes that a get reads. n is -1 if there are none: then the bytes of a put follow, and its answer is
// empty.
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

// Lend gives a put one block of 256 KiB without a copy. It gives how many bytes the put took within 100 ms: 0 if there
// was no room, -1 if the block has to be written instead. The memory must not change until Returned gives the token,
// which it does in any case.
func Lend(call int64, token int64, address uintptr, n int64) (taken int64, err error) {
	defer guard("put", &err)
	data, err := memory(address, n)
	if err != nil {
		return 0, err
	}
	lent, err := table.Lend(call, token, data)
	return int64(lent), err
}

// Returned gives the token of lent memory that is no longer needed, or 0 if there is none. A token is given again until
// the caller passes it as done.
func Returned(done int64) (token int64, err error) {
	defer guard("put", &err)
	return table.Returned(done), nil
}

// Pull lets a put read bytes of an open file, and tells how many it took within 100 ms: 0 if it can read no more, -1 if
// there was no room, or the disk has not answered yet.
func Pull(call int64, fd int64, n int64) (taken int64, err error) {
	defer guard("put", &err)
	pulled, err := table.Pull(call, int(fd), int(n))
	return int64(pulled), err
}

// Finish tells a put or an assembly that all bytes have come, so that it commits. It answers as Wait does.
func Finish(call int64) (answer string, err error) {
	defer guard("put", &err)
	return table.Finish(call)
}

// Wait gives the result of a call: for an object its size and SHA-256, and if it was asked for its description in JSON;
// otherwise JSON. While the call goes on, the answer is an at sign and a descriptor, which becomes readable once there is
// news of the call. If a get reads a whole object that fits into the n bytes at address, its bytes are there then.
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

// Impatient makes calls return as soon as they have to wait, for a thread that has other work then.
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

// Cancel undoes a call, or closes the reader that the call gave, and forgets it. An unknown number is no error.
func Cancel(call int64) (done bool, err error) {
	defer guard("cancel", &err)
	table.Cancel(call)
	return true, nil
}

// Stop gives a call up that goes on until it is undone: Wait tells of that. A reader is closed, in the background. An
// unknown number is no error.
func Stop(call int64) (done bool, err error) {
	defer guard("cancel", &err)
	table.Stop(call)
	return true, nil
}

// CancelAll undoes every running call, and gives how many calls have not ended.
func CancelAll() (running int64, err error) {
	defer guard("cancel", &err)
	return int64(table.CancelAll()), nil
}

// Read fills memory from an open reader at an offset. It gives the number of bytes: 0 at the end, -1 if none have come
// yet. Unless token is 0, the m bytes at next are for the bytes that follow: they may be written to until Returned
// gives the token.
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

// Fetch starts a call, under a number that the caller chooses, that fills memory from an open reader at an offset. It
// answers as Wait does: in the end with the number of bytes in JSON, which is less than n only at the end. The memory may
// be written to until Returned gives the token, which it does in any case.
func Fetch(reader, call, offset int64, address uintptr, n, token int64) (answer string, err error) {
	defer guard("read", &err)
	into, err := memory(address, n)
	if err != nil {
		return "", err
	}
	return table.Fetch(reader, call, offset, into, token)
}

// CheckKey tells whether a key is legal; the error says why it is not.
func CheckKey(key string) (legal bool, err error) {
	defer guard("key", &err)
	return true, object.CheckKey(key)
}

// CRC32C gives the CRC-32C (Castagnoli) of the bytes that sum stands for with the n bytes at address behind them. That of
// no bytes is 0.
func CRC32C(sum int64, address uintptr, n int64) (value int64, err error) {
	defer guard("checksum", &err)
	data, err := memory(address, n)
	if err != nil {
		return 0, err
	}
	return int64(crc32.Update(uint32(sum), castagnoli, data)), nil
}

// Stats gives in JSON what is open, for tests that look for leaks.
func Stats() (counts string, err error) {
	defer guard("stats", &err)
	return table.Stats(), nil
}
