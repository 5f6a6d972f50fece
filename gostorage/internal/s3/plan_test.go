package s3

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
)

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
)

// described writes a plan as a line: c for a part that is copied, r for one that is read, and of each span the source
// and its range.
func described(pieces []piece) string {
	var words []string
	for _, piece := range pieces {
		word := "r"
		if piece.copied {
			word = "c"
		}
		for _, span := range piece.spans {
			word += fmt.Sprintf(" %d:%d+%d", span.source, span.start, span.length)
		}
		words = append(words, word)
	}
	return strings.Join(words, " | ")
}

func TestPlans(t *testing.T) {
	const least, rest = leastPart, leastPart - kib
	for _, one := range []struct {
		name  string
		sizes []int64
		want  string
	}{
		{"one", []int64{least}, fmt.Sprintf("c 0:0+%d", least)},
		{"one small", []int64{7}, "c 0:0+7"},
		{"nothing", []int64{0, 0}, "r"},
		{"nothing around it", []int64{0, 7, 0}, "c 1:0+7"},
		{"equal", []int64{least, least, 3}, fmt.Sprintf("c 0:0+%d | c 1:0+%d | c 2:0+3", least, least)},
		{"small ones", []int64{1, 2, 3}, "r 0:0+1 1:0+2 2:0+3"},
		{"small at the end", []int64{least, 1, 2}, fmt.Sprintf("c 0:0+%d | r 1:0+1 2:0+2", least)},
		{
			"small before large", []int64{kib, 64 * mib, 64 * mib},
			fmt.Sprintf("r 0:0+%d 1:0+%d | c 1:%d+%d | c 2:0+%d", kib, rest, rest, 64*mib-rest, 64*mib),
		},
		{
			"too little would be left", []int64{kib, 6 * mib, 64 * mib},
			fmt.Sprintf("r 0:0+%d 1:0+%d | c 2:0+%d", kib, 6*mib, 64*mib),
		},
		{
			"but at the end", []int64{kib, 6 * mib, 0},
			fmt.Sprintf("r 0:0+%d 1:0+%d | c 1:%d+%d", kib, rest, rest, 6*mib-rest),
		},
		{
			"no range of what is not larger than a part", []int64{kib, least},
			fmt.Sprintf("r 0:0+%d 1:0+%d", kib, least),
		},
		{
			"not larger than need be", []int64{4 * mib, 4 * mib, 4 * mib, mib, least},
			fmt.Sprintf("r 0:0+%d 1:0+%d | r 2:0+%d 3:0+%d | c 4:0+%d", 4*mib, 4*mib, 4*mib, mib, least),
		},
		{
			"more than one copy takes", []int64{12 * gib, 5*gib + 1, 5 * gib},
			fmt.Sprintf("c 0:0+%d | c 0:%d+%d | c 0:%d+%d | c 1:0+%d | c 1:%d+%d | c 2:0+%d",
				4*gib, 4*gib, 4*gib, 8*gib, 4*gib, 5*gib/2, 5*gib/2, 5*gib/2+1, 5*gib),
		},
	} {
		pieces := plan(one.sizes)
		if got := described(pieces); got != one.want {
			t.Errorf("%s: %s, not %s", one.name, got, one.want)
		}
		if err := wrong(one.sizes, pieces); err != nil {
			t.Errorf("%s: %v", one.name, err)
		}
	}
}

func TestPlansOfManyParts(t *testing.T) {
	for _, one := range []struct {
		name  string
		sizes []int64
		parts int
		reads int64
	}{
		{"as many as there can be", slices.Repeat([]int64{leastPart}, mostParts), mostParts, 0},
		{"one more", slices.Repeat([]int64{leastPart}, mostParts+1), mostParts + 1, 0},
		{"small and large", slices.Repeat([]int64{kib, 64 * mib}, mostParts/2), mostParts, mostParts / 2 * leastPart},
		{"tiny", slices.Repeat([]int64{1}, mostParts), 1, mostParts},
		{"small", slices.Repeat([]int64{leastPart - 1}, mostParts), mostParts / 2, mostParts * (leastPart - 1)},
		{"one small", append([]int64{kib}, slices.Repeat([]int64{leastPart}, 999)...), 999, kib + leastPart},
	} {
		pieces := plan(one.sizes)
		if err := wrong(one.sizes, pieces); err != nil {
			t.Errorf("%s: %v", one.name, err)
		}
		var reads int64
		for _, piece := range pieces {
			if !piece.copied {
				reads += piece.size
			}
		}
		if len(pieces) != one.parts || reads != one.reads {
			t.Errorf("%s: %d parts for which %d bytes are read, not %d and %d",
				one.name, len(pieces), reads, one.parts, one.reads)
		}
	}
}

func TestEqual(t *testing.T) {
	for _, one := range []struct {
		sizes []int64
		want  bool
	}{
		{[]int64{8 * mib, 8 * mib, 8 * mib}, true},
		{[]int64{8 * mib, 8 * mib, 1}, true},
		{[]int64{8 * mib, 8 * mib, 9 * mib}, false},
		{[]int64{8 * mib, 7 * mib, 8 * mib}, false},
		{[]int64{3, 4, 5}, true}, // they are one part
		{[]int64{mib, mib, mib, mib, mib, mib, mib}, true},
		{[]int64{1}, true},
		{nil, true},
	} {
		if equal(plan(one.sizes)) != one.want {
			t.Errorf("%v: %v", one.sizes, !one.want)
		}
	}
}

// wrong tells what a plan breaks: every byte is there once, in order, and no limit is passed.
func wrong(sizes []int64, pieces []piece) error {
	source, at := 0, int64(0)
	skip := func() {
		for source < len(sizes) && at == sizes[source] {
			source, at = source+1, 0
		}
	}
	for i, piece := range pieces {
		last := i == len(pieces)-1
		var size int64
		for _, span := range piece.spans {
			skip()
			if span.source != source || span.start != at || span.length <= 0 || at+span.length > sizes[source] {
				return fmt.Errorf("part %d has %+v after byte %d of source %d", i, span, at, source)
			}
			at += span.length
			size += span.length
			if piece.copied && span.length < sizes[source] && sizes[source] <= leastPart {
				return fmt.Errorf("part %d is a range of a source that is too small: %+v", i, span)
			}
		}
		switch {
		case size != piece.size:
			return fmt.Errorf("part %d has %d bytes, not %d", i, size, piece.size)
		case size < leastPart && !last, size == 0 && len(pieces) > 1:
			return fmt.Errorf("part %d has only %d bytes", i, size)
		case size > mostPart, size >= 3*leastPart && !piece.copied:
			return fmt.Errorf("part %d has %d bytes", i, size)
		case piece.copied && len(piece.spans) != 1:
			return fmt.Errorf("part %d is copied from %d places", i, len(piece.spans))
		case !piece.copied && size >= leastPart && size-piece.spans[len(piece.spans)-1].length >= leastPart:
			return fmt.Errorf("part %d is larger than it need be", i)
		}
		for _, span := range piece.spans {
			if !piece.copied && sizes[span.source] >= 2*leastPart && span.length >= leastPart {
				return fmt.Errorf("part %d reads %d bytes of a large source", i, span.length)
			}
		}
	}
	if skip(); source != len(sizes) {
		return fmt.Errorf("ends at byte %d of source %d of %d", at, source, len(sizes))
	}
	return nil
}

func FuzzPlan(f *testing.F) {
	// Two bytes are a size: of these units so many, and some bytes more or less.
	units := []int64{0, 1, kib, leastPart / 5, leastPart, leastPart + 1, 64 * mib, gib, mostPart}
	f.Add([]byte{0, 0}, uint16(1))
	f.Add([]byte{4, 8, 2, 9, 6, 8}, uint16(3))
	f.Add([]byte{3, 32, 4, 7, 5, 9, 8, 40}, uint16(300))
	f.Add([]byte{1, 8}, uint16(12_000))
	f.Fuzz(func(t *testing.T, text []byte, times uint16) {
		var sizes []int64
		for len(text) >= 2 && len(sizes) < 64 {
			number := binary.LittleEndian.Uint16(text)
			unit := units[int(number&0xff)%len(units)]
			sizes = append(sizes, max(0, unit*int64(number>>11)+int64(number>>8&7)-4))
			text = text[2:]
		}
		sizes = slices.Repeat(sizes, int(times)%1000)
		pieces := plan(sizes)
		if err := wrong(sizes, pieces); err != nil {
			t.Fatal(err)
		}
		most := len(sizes)
		for _, size := range sizes {
			most += int(size / mostPart)
		}
		if len(pieces) > max(1, most) {
			t.Fatalf("%d parts of %d sources", len(pieces), len(sizes))
		}
	})
}
