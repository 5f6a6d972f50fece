package parts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/buffers"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/digest"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/memory"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

var (
	one   = bytes.Repeat([]byte("one"), 10_000)
	two   = bytes.Repeat([]byte("two!"), 1000)
	three = []byte("3")
	other = bytes.Repeat([]byte("TWO!"), 1000)
)

func joined(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// temps are the kinds of stores that parts lie in: one that keeps records with them, one that has them beside.
var temps = map[string]func() object.Store{
	"with the part":   func() object.Store { return memory.Open() },
	"beside the part": func() object.Store { return newForgetful() },
}

func onEach(t *testing.T, test func(t *testing.T, p *process, final object.Store)) {
	t.Helper()
	for name, open := range temps {
		t.Run(name, func(t *testing.T) {
			nothingLeft(t)
			test(t, &process{t: t, temp: open()}, copier{Store: memory.Open()})
		})
	}
}

func TestInOrder(t *testing.T) {
	onEach(t, func(t *testing.T, p *process, final object.Store) {
		p.put("s/00001", one)
		p.put("s/00002", two)
		p.put("s/00003", three)
		assembles(t, final, p.temp, joined(one, two, three), 0, "s/00001", "s/00002", "s/00003")
		if covered := p.extend("s/", 0); covered != 3 {
			t.Errorf("%d parts are covered", covered)
		}
	})
}

// Parts of more than a block, whose hashes are computed beside each other.
func TestLongParts(t *testing.T) {
	onEach(t, func(t *testing.T, p *process, final object.Store) {
		long := bytes.Repeat([]byte("long"), 300_000)
		p.put("s/00001", long)
		p.put("s/00002", long[1:])
		p.put("s/00004", long[2:])
		p.put("s/00003", long[3:])
		whole := joined(long, long[1:], long[3:], long[2:])
		assembles(t, final, p.temp, whole, int64(len(long)-2), "s/00001", "s/00002", "s/00003", "s/00004")
		p.extend("s/", 0)
		assembles(t, final, p.temp, whole, 0, "s/00001", "s/00002", "s/00003", "s/00004")
	})
}

func TestInOrderByOtherProcesses(t *testing.T) {
	onEach(t, func(t *testing.T, p *process, final object.Store) {
		p.put("s/00001", one)
		(&process{t: t, temp: p.temp}).put("s/00002", two)
		(&process{t: t, temp: p.temp}).put("s/00003", three)
		assembles(t, final, p.temp, joined(one, two, three), 0, "s/00001", "s/00002", "s/00003")
	})
}

func TestOutOfOrder(t *testing.T) {
	onEach(t, func(t *testing.T, p *process, final object.Store) {
		p.put("s/00003", three)
		p.put("s/00001", one)
		p.put("s/00002", two)
		rest := int64(len(three))
		assembles(t, final, p.temp, joined(one, two, three), rest, "s/00001", "s/00002", "s/00003")
		if covered := p.extend("s/", 0); covered != 3 {
			t.Fatalf("%d parts are covered", covered)
		}
		assembles(t, final, p.temp, joined(one, two, three), 0, "s/00001", "s/00002", "s/00003")
	})
}

func TestExtendGoesOnByOnePart(t *testing.T) {
	onEach(t, func(t *testing.T, p *process, final object.Store) {
		var keys []string
		for n := 5; n >= 1; n-- {
			p.put(partKey("s/", n), two)
			keys = append(keys, partKey("s/", 6-n))
		}
		for covered := 2; covered <= 5; covered++ { // the first was carried when it was put
			if now := p.extend("s/", 0); now != covered {
				t.Fatalf("%d parts are covered, not %d", now, covered)
			}
			read := int64(5-covered) * int64(len(two))
			assembles(t, final, p.temp, bytes.Repeat(two, 5), read, keys...)
		}
		p.temp.Delete(t.Context(), "s/00003") // what follows a gap is not covered
		if covered := p.extend("s/", time.Hour); covered != 2 {
			t.Errorf("%d parts are covered", covered)
		}
	})
}

// Parts that nobody knows the digests of: each has to be noted, or the run is of no use.
func TestExtendOfPartsThatAreNotKnown(t *testing.T) {
	onEach(t, func(t *testing.T, p *process, final object.Store) {
		for n, data := range [][]byte{one, two, three} {
			plain(t, p.temp, partKey("s/", n+1), data)
		}
		if covered := p.extend("s/", time.Hour); covered != 3 {
			t.Errorf("%d parts are covered", covered)
		}
		assembles(t, final, p.temp, joined(one, two, three), 0, "s/00001", "s/00002", "s/00003")
	})
}

func TestExtendOfNothing(t *testing.T) {
	onEach(t, func(t *testing.T, p *process, _ object.Store) {
		if covered := p.extend("s/", 0); covered != 0 {
			t.Errorf("%d parts are covered", covered)
		}
		p.put("s/00002", two)
		if covered := p.extend("s/", time.Hour); covered != 0 {
			t.Errorf("%d parts are covered", covered)
		}
	})
}

func TestPutAgain(t *testing.T) {
	onEach(t, func(t *testing.T, p *process, final object.Store) {
		keys := []string{"s/00001", "s/00002", "s/00003"}
		for i, data := range [][]byte{one, two, three} {
			p.put(keys[i], data)
		}
		p.put("s/00001", one) // the same bytes
		assembles(t, final, p.temp, joined(one, two, three), 0, keys...)
		p.put("s/00002", other)
		assembles(t, final, p.temp, joined(one, other, three), int64(len(three)), keys...)
		plain(t, p.temp, "s/00002", two)
		p.put("s/00003", three)
		// Two is known by its record no more, and three was put by a process that remembered another one.
		assembles(t, final, p.temp, joined(one, two, three), int64(len(two)+len(three)), keys...)
		p.put("s/00001", three)
		assembles(t, final, p.temp, joined(three, two, three), int64(len(two)+len(three)), keys...)
	})
}

func TestAnyParts(t *testing.T) {
	onEach(t, func(t *testing.T, p *process, final object.Store) {
		data := map[string][]byte{
			"s/00001": one, "s/00002": two, "s/00003": three, "r/00001": one, "r/00002": other, "r/00003": nil,
		}
		for _, key := range []string{"s/00001", "s/00002", "r/00001", "s/00003", "r/00002", "r/00003"} {
			p.put(key, data[key])
		}
		for _, parts := range []struct {
			covered int
			keys    string
		}{
			{1, "s/00001 s/00003"},
			{1, "s/00002"}, // its own digest is that of the whole
			{0, "s/00002 s/00001 s/00003"},
			{0, "s/00003 s/00002 s/00001"},
			{1, "s/00001 s/00001"},
			{0, "s/00002 s/00002 s/00002"},
			{2, "r/00001 s/00002 s/00001"}, // the same bytes under another name
			{3, "s/00001 r/00002 r/00003"},
			{1, "s/00001 r/00003 s/00002"},
		} {
			keys := strings.Fields(parts.keys)
			var whole []byte
			read := int64(0)
			for i, key := range keys {
				whole = append(whole, data[key]...)
				if i >= parts.covered {
					read += int64(len(data[key]))
				}
			}
			assembles(t, final, p.temp, whole, read, keys...)
		}
	})
}

func TestLongest(t *testing.T) {
	a, b, c := described(one), described(two), described(three)
	run := digest.Start()
	var kept []string
	for _, part := range [][]byte{one, two, three} {
		state, _ := run.Hash()
		state.Write(part)
		run, _ = run.Add(described(part), state)
		kept = append(kept, run.String())
	}
	with := func(info object.Info, records ...string) object.Info {
		info.Record = strings.Join(records, "\n")
		return info
	}
	for name, tell := range map[string]struct {
		covered int
		all     []object.Info
	}{
		"nothing":               {0, nil},
		"no records":            {0, []object.Info{a, b, c}},
		"all":                   {3, []object.Info{with(a, kept[0]), with(b, kept[1]), with(c, kept[2])}},
		"only the last":         {3, []object.Info{a, b, with(c, kept[2])}},
		"one is missing":        {2, []object.Info{with(a, kept[0]), with(b, kept[1]), c}},
		"two with one part":     {2, []object.Info{a, with(b, kept[0], kept[1]), c}},
		"one is damaged":        {2, []object.Info{with(a, kept[0]), with(b, "x", kept[1], kept[1][1:]), with(c, kept[2][:99])}},
		"another place":         {0, []object.Info{with(a, kept[1]), with(b, kept[2]), with(c, kept[0])}},
		"another order":         {1, []object.Info{with(a, kept[0]), with(c, kept[2]), with(b, kept[1])}},
		"other bytes":           {1, []object.Info{with(a, kept[0]), with(described(other), kept[1]), with(c, kept[2])}},
		"a digest is not known": {1, []object.Info{with(a, kept[0]), with(object.Info{Size: b.Size}, kept[1]), with(c, kept[2])}},
		"of no parts":           {0, []object.Info{with(a, digest.Start().String())}},
	} {
		run, covered := longest(tell.all)
		if covered != tell.covered {
			t.Errorf("%s: %d parts are covered", name, covered)
		}
		if covered == 0 && run != digest.Start() || covered > 0 && run.String() != kept[covered-1] {
			t.Errorf("%s: it is the record of something else", name)
		}
	}
}

func described(data []byte) object.Info {
	return object.Info{Size: int64(len(data)), SHA256: sum(data)}
}

// What a sidecar says is believed only of the version that it was written for.
func TestForeignSidecars(t *testing.T) {
	temp, final := newForgetful(), copier{Store: memory.Open()}
	p := &process{t: t, temp: temp}
	p.put("s/00001", one)
	p.put("s/00002", two)
	p.put("r/00001", one)
	p.put("r/00002", other)
	older := content(t, temp, "s/00002.digest")
	check := func(read int, second []byte) {
		t.Helper()
		assembles(t, final, temp, joined(one, second), int64(read), "s/00001", "s/00002")
	}
	check(0, two)
	plain(t, temp, "s/00002.digest", content(t, temp, "r/00002.digest"))
	check(len(two), two)
	plain(t, temp, "s/00002.digest", older)
	check(0, two)
	p.put("s/00002", other)
	check(0, other)
	plain(t, temp, "s/00002.digest", older)
	check(len(other), other)
	p.put("s/00002", two) // again, but it is another version
	plain(t, temp, "s/00002.digest", older)
	check(len(two), two)
	plain(t, temp, "s/00001.digest", older)
	check(len(one)+len(two), two)
	if covered := p.extend("s/", 0); covered != 1 {
		t.Errorf("%d parts are covered", covered)
	}
	check(len(two), two)
	for _, damaged := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte("x"), 5000), older[1:]} {
		plain(t, temp, "s/00001.digest", damaged)
		check(len(one)+len(two), two)
	}
	temp.Delete(t.Context(), "s/00001.digest")
	check(len(one)+len(two), two)
}

func TestAVersionThatIsNotBelieved(t *testing.T) {
	temp, final := newForgetful(), copier{Store: memory.Open()}
	temp.young = true
	p := &process{t: t, temp: temp}
	p.put("s/00001", one)
	p.put("s/00002", two)
	assembles(t, final, temp, joined(one, two), int64(len(one)+len(two)), "s/00001", "s/00002")
	if covered := p.extend("s/", 0); covered != 0 {
		t.Errorf("%d parts are covered", covered)
	}
	temp.young = false
	assembles(t, final, temp, joined(one, two), 0, "s/00001", "s/00002")
}

func TestDeleteTakesWhatLiesBeside(t *testing.T) {
	temp := newForgetful()
	p := &process{t: t, temp: temp}
	for n := 1; n <= 3; n++ {
		p.put(partKey("s/", n), two)
	}
	if err := Delete(t.Context(), temp, "s/00002"); err != nil {
		t.Fatal(err)
	}
	left, _ := temp.List(t.Context(), "s/")
	if len(left) != 4 {
		t.Errorf("left are %v", left)
	}
	if count, err := DeleteAll(t.Context(), temp, "s/"); count != 2 || err != nil {
		t.Errorf("%d parts deleted, %v", count, err)
	}
	if left, _ := temp.List(t.Context(), ""); len(left) != 0 {
		t.Errorf("left are %v", left)
	}
}

func TestNotes(t *testing.T) {
	record := digest.Start().String()
	for _, n := range []note{
		{"v1", 7, sum(two), record},
		{"", 0, sum(nil), ""},
		{"with \"quotes\" and\nlines \xff", 1 << 40, sum(one), record},
	} {
		if read, ok := parseNote(n.text()); !ok || read != n {
			t.Errorf("%+v is read as %+v", n, read)
		}
	}
	text := note{"v1", 7, sum(two), record}.text()
	for i := range text {
		damaged := []byte(text)
		damaged[i] ^= 0x10
		_, changed := parseNote(string(damaged))
		_, begun := parseNote(text[:i])
		_, ended := parseNote(text[i+1:])
		if changed || begun || ended {
			t.Fatalf("damaged at %d, and it is read", i)
		}
	}
	if _, ok := parseNote(note{"v1", 7, "abc", record}.text()); ok {
		t.Error("a note with no digest is read")
	}
}

func TestWhatANoteIsAbout(t *testing.T) {
	n := note{"v1", int64(len(two)), sum(two), "record"}
	for name, tell := range map[string]struct {
		believed bool
		note     note
		part     object.Info
	}{
		"the version":           {true, n, object.Info{Version: "v1", Size: n.size}},
		"the digest":            {true, n, object.Info{SHA256: n.sha256, Size: n.size}},
		"another version":       {false, n, object.Info{Version: "v2", Size: n.size}},
		"no version":            {false, n, object.Info{Size: n.size}},
		"neither has a version": {false, note{"", n.size, n.sha256, n.record}, object.Info{Size: n.size}},
		"another digest":        {false, n, object.Info{Version: "v1", SHA256: sum(other), Size: n.size}},
		"another size":          {false, n, object.Info{Version: "v1", Size: n.size + 1}},
		"none":                  {false, note{}, object.Info{}},
	} {
		part := tell.part
		tell.note.about(&part)
		if part.Record == "record" != tell.believed || !tell.believed && !reflect.DeepEqual(part, tell.part) {
			t.Errorf("%s: %+v", name, part)
		}
	}
}

func FuzzParseNote(f *testing.F) {
	text, _ := digest.Unseal(note{"v1", 7, sum(two), digest.Start().String()}.text())
	for _, seed := range []string{"", "v1 part", text, text[:40], "v1 part \"\" 0 \"\" \"\"", "v1 part \"a"} {
		f.Add(seed, "v1", int64(7))
	}
	f.Fuzz(func(t *testing.T, text, version string, size int64) {
		for _, text := range []string{text, digest.Seal(text)} {
			n, ok := parseNote(text)
			if again, same := parseNote(n.text()); ok && (!same || again != n) {
				t.Errorf("%q is read as %+v, and that as %+v", text, n, again)
			}
			info := object.Info{Version: version, Size: size}
			n.about(&info)
			if info.SHA256 != "" && (version == "" || n.version != version || n.size != size) {
				t.Errorf("%+v is believed of version %q with %d bytes", n, version, size)
			}
		}
	})
}

func TestWhatIsExpectedOfParts(t *testing.T) {
	onEach(t, func(t *testing.T, p *process, _ object.Store) {
		p.put("s/00001", one)
		p.put("s/00002", two)
		plain(t, p.temp, "s/00002", other) // a store may not know its digest, and has to read it
		for name, final := range map[string]object.Store{
			"copied":              copier{Store: memory.Open()},
			"copied, digest last": copier{Store: memory.Open(), sumFirst: true},
			"cannot be copied":    copier{Store: memory.Open(), refuse: true},
			"streamed":            memory.Open(),
		} {
			for _, keys := range [][]string{{"s/00001", "s/00002"}, {"s/00002", "s/00001"}, {"s/00002"}} {
				a := assembly(final, p.temp, keys...)
				for i := range a.Parts {
					if a.Parts[i].Key == "s/00002" {
						a.Parts[i].Expect = digest.Expect{Size: int64(len(two)), SHA256: sum(two)}
					}
				}
				_, err := a.Run(t.Context())
				if known, ok := err.(*object.Error); !ok || known.Code != object.Mismatch || known.Key != "s/00002" {
					t.Errorf("%s, %v: %v", name, keys, err)
				}
				if left, _ := final.List(t.Context(), ""); len(left) != 0 {
					t.Errorf("%s, %v: %v is there", name, keys, left)
				}
			}
		}
	})
}

func TestWhatIsExpectedOfTheWhole(t *testing.T) {
	onEach(t, func(t *testing.T, p *process, _ object.Store) {
		p.put("s/00001", one)
		p.put("s/00003", three)
		p.put("s/00002", two)
		keys := []string{"s/00001", "s/00002", "s/00003"}
		whole := joined(one, two, three)
		for _, final := range []object.Store{
			copier{Store: memory.Open()}, copier{Store: memory.Open(), sumFirst: true}, memory.Open(),
		} {
			for range 2 {
				for _, expect := range []digest.Expect{
					{Size: int64(len(whole)) + 1}, {Size: 0}, {Size: -1, SHA256: sum(one)}, {Size: int64(len(whole)), SHA256: sum(nil)},
				} {
					a := assembly(final, p.temp, keys...)
					a.Expect = expect
					if _, err := a.Run(t.Context()); object.CodeOf(err) != object.Mismatch {
						t.Errorf("%+v: %v", expect, err)
					}
					if left, _ := final.List(t.Context(), ""); len(left) != 0 {
						t.Errorf("%v is there", left)
					}
				}
				p.extend("s/", 0)
			}
			a := assembly(final, p.temp, keys...)
			a.Expect = digest.Expect{Size: int64(len(whole)), SHA256: sum(whole)}
			if _, err := a.Run(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestMissingParts(t *testing.T) {
	onEach(t, func(t *testing.T, p *process, final object.Store) {
		p.put("s/00001", one)
		plain(t, p.temp, "lies where no part does", two)
		assembles(t, final, p.temp, joined(two, one), int64(len(one)+len(two)), "lies where no part does", "s/00001")
		for _, keys := range [][]string{{"s/00001", "s/00002"}, {"r/00001"}, {"none"}} {
			_, err := assembly(final, p.temp, keys...).Run(t.Context())
			if known, ok := err.(*object.Error); !ok || known.Code != object.NotFound || known.Key != keys[len(keys)-1] {
				t.Errorf("%v: %v", keys, err)
			}
		}
	})
}

// outcomes are the finals to which parts may go, and what is read of them.
func finals() map[string]object.Store {
	return map[string]object.Store{
		"copied":             copier{Store: memory.Open()},
		"copied, sum first":  copier{Store: memory.Open(), sumFirst: true},
		"copied but not all": copier{Store: memory.Open(), refuse: true},
		"streamed":           streamer{memory.Open()},
		"memory":             memory.Open(),
	}
}

// streamer is a Store that is no Joiner.
type streamer struct{ object.Store }

// A part that changes, for good or for a while, at whatever moment: the object is one that could be, with its own
// digest, or there is none.
func TestPartsThatChangeMeanwhile(t *testing.T) {
	for kind, open := range temps {
		for name, final := range finals() {
			t.Run(kind+", "+name, func(t *testing.T) {
				inner := open()
				temp := &watched{Store: inner}
				nothingLeft(t, temp)
				p := &process{t: t, temp: inner}
				failed, done := 0, 0
				for first := int64(1); first < 30; first++ {
					for _, last := range []int64{0, first, first + 1, first + 3} { // 0: it stays so
						p.put("s/00001", one)
						p.put("s/00003", three)
						plain(t, inner, "s/00002", two) // from here on it has to be read
						temp.calls.Store(0)
						temp.before = func(call int64) error {
							switch call {
							case first:
								plain(t, inner, "s/00002", other)
							case last:
								plain(t, inner, "s/00002", two)
							}
							return nil
						}
						a := assembly(final, temp, "s/00001", "s/00002", "s/00003")
						info, err := a.Run(t.Context())
						temp.before = nil
						if err != nil {
							if object.CodeOf(err) != object.Mismatch {
								t.Fatalf("changed at call %d to %d: %v", first, last, err)
							}
							failed++
							continue
						}
						done++
						is := content(t, final, "whole")
						if info.SHA256 != sum(is) {
							t.Fatalf("changed at call %d to %d: a wrong digest", first, last)
						}
						if !bytes.Equal(is, joined(one, two, three)) && !bytes.Equal(is, joined(one, other, three)) {
							t.Fatalf("changed at call %d to %d: it never was like that", first, last)
						}
					}
				}
				t.Logf("%d assembled, %d found out", done, failed)
				if done == 0 || failed == 0 && name != "memory" {
					t.Error("it never came to the moment that counts")
				}
			})
		}
	}
}

// The same while extend reads: what it notes is right or is not believed.
func TestPartsThatChangeWhileExtendReads(t *testing.T) {
	for kind, open := range temps {
		t.Run(kind, func(t *testing.T) {
			inner := open()
			temp, final := &watched{Store: inner}, copier{Store: memory.Open()}
			nothingLeft(t, temp)
			for first := int64(1); first < 20; first++ {
				for _, second := range [][]byte{two, other} {
					p := &process{t: t, temp: inner}
					for n, data := range [][]byte{one, second, three} {
						plain(t, inner, partKey("s/", n+1), data)
					}
					temp.calls.Store(0)
					temp.before = func(call int64) error {
						if call == first {
							plain(t, inner, "s/00002", other)
						}
						return nil
					}
					p.temp = temp
					_, err := Extend(t.Context(), temp, &p.runs, "s/", time.Hour)
					temp.before = nil
					if err != nil && object.CodeOf(err) != object.Mismatch {
						t.Fatal(err)
					}
					a := assembly(final, inner, "s/00001", "s/00002", "s/00003")
					info, err := a.Run(t.Context())
					now := joined(one, content(t, inner, "s/00002"), three)
					if err != nil || info.SHA256 != sum(now) || !bytes.Equal(content(t, final, "whole"), now) {
						t.Fatalf("changed at call %d: %v", first, err)
					}
				}
			}
		})
	}
}

// Cancelled, or failed by the store, at whatever call: an error, no object, and nothing left.
func TestInterruptedAtEveryCall(t *testing.T) {
	broken := object.Errorf(object.IO, "broken")
	for kind, open := range temps {
		for name, final := range finals() {
			for _, how := range []string{"cancelled", "broken"} {
				t.Run(fmt.Sprintf("%s, %s, %s", kind, name, how), func(t *testing.T) {
					inner := open()
					temp := &watched{Store: inner}
					nothingLeft(t, temp)
					p := &process{t: t, temp: inner}
					for n := 12; n > 0; n-- { // more than are opened ahead
						p.put(partKey("s/", n), bytes.Repeat(two, n))
					}
					var keys []string
					for n := 1; n <= 12; n++ {
						keys = append(keys, partKey("s/", n))
					}
					var fired atomic.Bool
					for at := int64(1); at < 80; at++ {
						ctx, cancel := context.WithCancelCause(t.Context())
						temp.calls.Store(0)
						fired.Store(false)
						temp.before = func(call int64) error {
							if call < at {
								return nil
							}
							fired.Store(true)
							if how == "broken" {
								return broken
							}
							cancel(object.Errorf(object.Cancelled, "cancelled"))
							return nil
						}
						_, err := assembly(final, temp, keys...).Run(ctx)
						_, missing := final.Stat(t.Context(), "whole")
						if err == nil && missing != nil || err != nil && missing == nil {
							t.Fatalf("at call %d: %v, but the object: %v", at, err, missing)
						}
						if err != nil && object.CodeOf(err) != object.Cancelled && object.CodeOf(err) != object.IO {
							t.Fatalf("at call %d: %v", at, err)
						}
						_ = final.Delete(t.Context(), "whole")
						if how == "broken" && fired.Load() && err == nil {
							t.Fatalf("at call %d: nothing was said of it", at)
						}
						var runs Runs
						temp.calls.Store(0)
						if _, err := Extend(ctx, temp, &runs, "s/", 0); err != nil && !errors.Is(err, broken) && object.CodeOf(err) != object.Cancelled {
							t.Fatal(err)
						}
						cancel(nil)
						if !fired.Load() {
							break
						}
					}
				})
			}
		}
	}
}

// scribbled is a Store of which somebody writes to a part while it is read.
type scribbled struct {
	object.Store
	key string
}

func (s scribbled) Get(ctx context.Context, key string, hint object.Range) (object.Reader, error) {
	opened, err := s.Store.Get(ctx, key, hint)
	return scribbledReader{opened, key == s.key}, err
}

type scribbledReader struct {
	object.Reader
	changes bool
}

func (r scribbledReader) Unchanged() bool { return !r.changes }

func TestPartsThatAreWrittenToWhileTheyAreRead(t *testing.T) {
	onEach(t, func(t *testing.T, p *process, _ object.Store) {
		plain(t, p.temp, "s/00001", one)
		plain(t, p.temp, "s/00002", two)
		for name, final := range finals() {
			for key, code := range map[string]object.Code{"": "", "s/00001": object.Mismatch, "s/00002": object.Mismatch} {
				temp := scribbled{p.temp, key}
				_, err := assembly(final, temp, "s/00001", "s/00002").Run(t.Context())
				if known, ok := err.(*object.Error); object.CodeOf(err) != code || ok && known.Key != key {
					t.Errorf("%s: %q is written to: %v", name, key, err)
				}
			}
		}
		if _, err := Extend(t.Context(), scribbled{p.temp, "s/00002"}, &p.runs, "s/", time.Hour); object.CodeOf(err) != object.Mismatch {
			t.Errorf("extend: %v", err)
		}
		if covered := p.extend("s/", 0); covered != 2 {
			t.Errorf("%d parts are covered", covered) // the way to the first was noted
		}
	})
}

func TestFiguresOfWhatWasUndoneAreNotCounted(t *testing.T) {
	p := &process{t: t, temp: memory.Open()}
	p.put("s/00001", one)
	p.put("s/00002", two)
	a := assembly(copier{Store: memory.Open(), refuse: true}, p.temp, "s/00001", "s/00002")
	if _, err := a.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	size := int64(len(one) + len(two))
	if a.Figures() != (Figures{0, size}) || a.Done() != size {
		t.Errorf("%+v, %d done", a.Figures(), a.Done())
	}
}

// Cancelled while a long part is read: no more of it is.
func TestCancelledWithinAPart(t *testing.T) {
	onEach(t, func(t *testing.T, p *process, final object.Store) {
		plain(t, p.temp, "s/00001", bytes.Repeat(one, 200))
		temp := &watched{Store: p.temp}
		nothingLeft(t, temp)
		for _, work := range []func(context.Context) error{
			func(ctx context.Context) error { _, err := Extend(ctx, temp, &p.runs, "s/", 0); return err },
			func(ctx context.Context) error {
				_, err := assembly(final, temp, "s/00001", "s/00001").Run(ctx)
				return err
			},
			func(ctx context.Context) error {
				_, err := assembly(streamer{final}, temp, "s/00001", "s/00001").Run(ctx)
				return err
			},
		} {
			ctx, cancel := context.WithCancelCause(t.Context())
			temp.calls.Store(0)
			temp.before = func(call int64) error {
				if call == 8 {
					cancel(object.Errorf(object.Cancelled, "cancelled"))
				}
				return nil
			}
			if err := work(ctx); object.CodeOf(err) != object.Cancelled {
				t.Error(err)
			}
			if calls := temp.calls.Load(); calls > 18 { // of 25, or twice as many; who reads hears of the end a little later
				t.Errorf("%d calls, the last but 8 after the end", calls)
			}
		}
	})
}

func TestRunsAreBounded(t *testing.T) {
	var runs Runs
	for n := range 3 * mostRuns {
		runs.set(partKey("s/", n), digest.Start())
		runs.forget(partKey("s/", n/2))
		runs.set(partKey("s/", n), digest.Start())
	}
	if len(runs.byKey) > mostRuns || len(runs.latest) != len(runs.byKey) {
		t.Errorf("%d runs, %d names", len(runs.byKey), len(runs.latest))
	}
	if record, _ := runs.near(t.Context(), partKey("s/", 3*mostRuns-1)); record == nil {
		t.Error("the latest is forgotten")
	}
	for n := range 3 * mostRuns {
		runs.looked(partKey("s/", n), false)
	}
	if len(runs.vain) > mostRuns {
		t.Errorf("%d folders are remembered", len(runs.vain))
	}
}

// gated is a store that keeps a part back: it knows the bytes, and stores them when the gate opens.
type gated struct {
	object.Store
	gate  chan struct{}
	holds string // the part that is kept back
	held  chan struct{}
	looks atomic.Int64
}

func (g *gated) Put(ctx context.Context, key string, src object.Source, opts object.PutOptions) (object.Info, error) {
	if key == g.holds {
		src = gatedSource{src, g}
	}
	return g.Store.Put(ctx, key, src, opts)
}

func (g *gated) Stat(ctx context.Context, key string) (object.Info, error) {
	g.looks.Add(1)
	return g.Store.Stat(ctx, key)
}

type gatedSource struct {
	object.Source
	by *gated
}

func (s gatedSource) Record() string {
	record := s.Source.Record()
	close(s.by.held)
	<-s.by.gate
	return record
}

// A part continues the one before it while that is still being stored, and nobody looks for it.
func TestPartsThatArePutAtATime(t *testing.T) {
	temp := &gated{Store: memory.Open(), gate: make(chan struct{}), holds: "s/00001", held: make(chan struct{})}
	p := &process{t: t, temp: temp}
	var first sync.WaitGroup
	first.Go(func() { p.put("s/00001", one) })
	<-temp.held
	p.put("s/00002", two)
	p.put("s/00003", three)
	close(temp.gate)
	first.Wait()
	if looks := temp.looks.Load(); looks != 0 {
		t.Errorf("%d looks", looks)
	}
	assembles(t, copier{Store: memory.Open()}, temp.Store, joined(one, two, three), 0, "s/00001", "s/00002", "s/00003")
	if len(p.runs.coming) != 0 {
		t.Errorf("%d parts are still coming", len(p.runs.coming))
	}
}

// A part does not wait for one whose bytes are still to come, and does not look for it either.
func TestAPartWaitsForNoOther(t *testing.T) {
	temp := &gated{Store: memory.Open()}
	p := &process{t: t, temp: temp}
	slow := digest.NewPipe(buffers.Shared, digest.Expect{Size: -1})
	defer slow.Close()
	slow.Carry()
	var first sync.WaitGroup
	first.Go(func() {
		if _, err := Put(t.Context(), temp, &p.runs, "s/00001", slow, object.PutOptions{Overwrite: true}); err != nil {
			t.Error(err)
		}
	})
	for begun := false; !begun; time.Sleep(time.Millisecond) {
		p.runs.mu.Lock()
		begun = p.runs.coming["s/00001"] != nil
		p.runs.mu.Unlock()
	}
	p.put("s/00002", two)
	if _, err := slow.Write(one, time.Minute); err != nil {
		t.Fatal(err)
	}
	slow.CloseWrite()
	first.Wait()
	if looks := temp.looks.Load(); looks != 0 {
		t.Errorf("%d looks", looks)
	}
	assembles(t, copier{Store: memory.Open()}, temp.Store, joined(one, two), int64(len(two)), "s/00001", "s/00002")
}

// A put that fails after its record was told does no harm to the part that continues it.
func TestAPartThatFailsAfterAll(t *testing.T) {
	temp := &gated{Store: memory.Open(), gate: make(chan struct{}), holds: "s/00001", held: make(chan struct{})}
	p := &process{t: t, temp: temp}
	pipe := pumped(other, true)
	defer pipe.Close()
	failed := errors.New("failed")
	var first sync.WaitGroup
	first.Go(func() {
		_, err := Put(t.Context(), failing{temp, failed}, &p.runs, "s/00001", pipe, object.PutOptions{Overwrite: true})
		if err != failed {
			t.Error(err)
		}
	})
	<-temp.held
	p.put("s/00002", two)
	close(temp.gate)
	first.Wait()
	temp.holds = ""
	p.put("s/00001", one)
	assembles(t, copier{Store: memory.Open()}, temp.Store, joined(one, two), int64(len(two)), "s/00001", "s/00002")
}

// failing is a store whose puts fail at the last moment.
type failing struct {
	object.Store
	err error
}

func (f failing) Put(ctx context.Context, key string, src object.Source, opts object.PutOptions) (object.Info, error) {
	_, _ = f.Store.Put(ctx, key, src, opts)
	_ = f.Delete(ctx, key)
	return object.Info{}, f.err
}

// Looks for parts that never continue anything become rare, and come back when one is of use.
func TestLooksInVain(t *testing.T) {
	temp := &gated{Store: memory.Open()}
	p := &process{t: t, temp: temp}
	const last = 300
	for number := last; number > 0; number-- {
		p.put(partKey("s/", number), fmt.Append(nil, number))
	}
	if looks := temp.looks.Load(); looks > last/20 {
		t.Errorf("%d looks for %d parts", looks, last)
	}
	if covered := p.extend("s/", time.Hour); covered != last {
		t.Errorf("%d parts are covered", covered)
	}
	p.put(partKey("s/", last+1), one) // this process has extended, so it knows
	if covered := p.extend("s/", 0); covered != last+1 {
		t.Errorf("%d parts are covered", covered)
	}
}

func TestPausesBetweenLooks(t *testing.T) {
	var runs Runs
	count := func(parts int) (looks int) {
		for range parts {
			if runs.looks("s/") {
				looks++
				runs.looked("s/", false)
			}
		}
		return looks
	}
	if looks := count(1 + 1 + 1 + 2 + 1); looks != 3 { // after one, two, four parts
		t.Errorf("%d looks", looks)
	}
	count(10 * mostPause)
	if looks := count(10 * (mostPause + 1)); looks != 10 {
		t.Errorf("%d looks", looks)
	}
	for !runs.looks("s/") {
	}
	runs.looked("s/", true)
	for range 2 {
		if !runs.looks("s/") {
			t.Error("no look after one that was of use")
		}
	}
}

// The process remembers a part that another one has put again since: that costs a reading, not the digest.
func TestAProcessThatRemembersWhatIsNoMore(t *testing.T) {
	onEach(t, func(t *testing.T, p *process, final object.Store) {
		second := &process{t: t, temp: p.temp}
		p.put("s/00001", one)
		second.put("s/00001", other)
		p.put("s/00002", two)
		assembles(t, final, p.temp, joined(other, two), int64(len(two)), "s/00001", "s/00002")
		p.put("s/00003", three)
		plain(t, p.temp, "s/00002", other)
		second.put("s/00003", two)
		a := assembly(final, p.temp, "s/00001", "s/00002", "s/00003")
		if info, err := a.Run(t.Context()); err != nil || info.SHA256 != sum(joined(other, other, two)) {
			t.Fatal(info, err)
		}
	})
}
