package digest

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

func part(data string) object.Info {
	sum := sha256.Sum256([]byte(data))
	return object.Info{Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:])}
}

// recordOf carries the digest on over parts, through the form in which a record is kept.
func recordOf(t testing.TB, parts ...string) Record {
	t.Helper()
	run := Start()
	for _, data := range parts {
		state, ok := run.Hash()
		if !ok {
			t.Fatal("a record without a hash")
		}
		state.Write([]byte(data))
		next, ok := run.Add(part(data), state)
		if !ok {
			t.Fatal("a part that cannot be added")
		}
		if run, ok = ParseRecord(next.String()); !ok || run != next {
			t.Fatalf("%q is read as %v", next.String(), run)
		}
	}
	return run
}

func TestRecordIsCarriedOn(t *testing.T) {
	long := strings.Repeat("long", 1000)
	for _, parts := range [][]string{
		{}, {""}, {"a"}, {"", "", "a"}, {"a", "b", "c"}, {long, "a", long, ""}, {strings.Repeat("x", 64), "y"},
	} {
		whole := strings.Join(parts, "")
		run := recordOf(t, parts...)
		if run.SHA256() != part(whole).SHA256 || run.Size != int64(len(whole)) {
			t.Errorf("%q: %d bytes, %s", parts, run.Size, run.SHA256())
		}
	}
}

// A chain is of these contents, in these parts, in this order.
func TestChainsDiffer(t *testing.T) {
	seen := map[Chain][]string{}
	for _, parts := range [][]string{
		{}, {""}, {"", ""}, {"a"}, {"b"}, {"a", "b"}, {"b", "a"}, {"ab"}, {"a", "", "b"}, {"a", "a"}, {"a", "b", "a"},
	} {
		chain := recordOf(t, parts...).Chain
		if other, ok := seen[chain]; ok {
			t.Errorf("%q and %q have the same chain", other, parts)
		}
		seen[chain] = parts
	}
	other := part("a")
	other.Size++
	if chain, _ := (Chain{}).Add(other); chain == recordOf(t, "a").Chain {
		t.Error("the size of a part is not in the chain")
	}
	for _, sum := range []string{"", "zz", part("a").SHA256[:62], part("a").SHA256 + "00"} {
		if _, ok := (Chain{}).Add(object.Info{SHA256: sum}); ok {
			t.Errorf("%q is taken for a digest", sum)
		}
	}
}

func TestDamagedRecordsAreRefused(t *testing.T) {
	text := recordOf(t, "one", "two").String()
	for i := range text {
		for bit := range 8 {
			damaged := []byte(text)
			damaged[i] ^= 1 << bit
			if _, ok := ParseRecord(string(damaged)); ok {
				t.Fatalf("bit %d of byte %d changed, and it is read", bit, i)
			}
		}
		if _, ok := ParseRecord(text[:i]); ok {
			t.Fatalf("the first %d bytes are read", i)
		}
		if _, ok := ParseRecord(text[i+1:]); ok {
			t.Fatalf("it is read without the first %d bytes", i+1)
		}
		if _, ok := ParseRecord(text[:i] + text[i+1:]); ok {
			t.Fatalf("it is read without byte %d", i)
		}
	}
	for _, more := range []string{" ", "\n", "x", " x", text, "\n" + text} {
		if _, ok := ParseRecord(text + more); ok {
			t.Errorf("it is read with %q behind it", more)
		}
	}
}

// What is whole but not true of itself is no record either.
func TestRecordsThatContradictThemselvesAreRefused(t *testing.T) {
	fields := strings.Fields(recordOf(t, "one", "two").String())
	version, algorithm, size, chain, state := fields[0], fields[1], fields[2], fields[3], fields[4]
	if _, ok := ParseRecord(Seal(strings.Join(fields[:5], " "))); !ok {
		t.Fatal("a sealed record is refused")
	}
	for _, other := range [][]string{
		{version, algorithm, "7", chain, state},
		{version, algorithm, "-6", chain, state},
		{"v2", algorithm, size, chain, state},
		{version, "sha512", size, chain, state},
		{version, algorithm, size, chain[2:], state},
		{version, algorithm, size, chain, state[4:]},
		{version, algorithm, size, chain, encode([]byte("sha\x03"))},
		{version, algorithm, size, chain},
		{},
	} {
		if _, ok := ParseRecord(Seal(strings.Join(other, " "))); ok {
			t.Errorf("%q is read", other)
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	whole := recordOf(f, "one", "two").String()
	unsealed, _ := Unseal(whole)
	for _, seed := range []string{"", " ", whole, unsealed, "v1 sha256 0  ", "v1 sha256 -1 a b", unsealed[:60]} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		// Few texts have the right checksum: the rest of the parser is looked at with one that has.
		for _, text := range []string{text, Seal(text)} {
			run, ok := ParseRecord(text)
			if !ok {
				continue
			}
			if again, ok := ParseRecord(run.String()); !ok || again != run {
				t.Errorf("%q is read as %v, and that as %v", text, run, again)
			}
			if _, ok := run.Hash(); !ok || len(run.SHA256()) != 64 {
				t.Errorf("%q is a record that cannot be carried on", text)
			}
		}
	})
}
