//go:build linux

// Command syscalls times the system calls that a durable put of a small object cannot do without (create, write,
// fsync, rename, fsync of the directory), with nothing around them. It prints nanoseconds of wall clock and of CPU for
// each object: the floor that the benchmark compares with.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: syscalls DIRECTORY COUNT SIZE")
		os.Exit(2)
	}
	count, err := strconv.Atoi(os.Args[2])
	check(err)
	size, err := strconv.Atoi(os.Args[3])
	check(err)
	run(os.Args[1], count, make([]byte, size))
}

func run(directory string, count int, data []byte) {
	runtime.LockOSThread()
	dir, err := syscall.Open(directory, syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	check(err)
	staging := filepath.Join(directory, "staging")
	cpu, wall := processCPU(), time.Now()
	for i := range count {
		fd, err := syscall.Open(staging, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL, 0o640)
		check(err)
		_, err = syscall.Write(fd, data)
		check(err)
		check(syscall.Fsync(fd))
		check(syscall.Close(fd))
		check(syscall.Rename(staging, filepath.Join(directory, strconv.Itoa(i))))
		check(syscall.Fsync(dir))
	}
	fmt.Println(time.Since(wall).Nanoseconds()/int64(count), (processCPU()-cpu)/int64(count))
}

func processCPU() int64 {
	var usage syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return usage.Utime.Nano() + usage.Stime.Nano()
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
