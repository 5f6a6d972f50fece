package object

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

func sharedKeys(t testing.TB) (legal, illegal []string) {
	data, err := os.ReadFile("../../../tests/contract.json")
	if err != nil {
		t.Fatal(err)
	}
	var keys struct {
		Legal   []string `json:"legal_keys"`
		Illegal []string `json:"illegal_keys"`
	}
	if err := json.Unmarshal(data, &keys); err != nil {
		t.Fatal(err)
	}
	if len(keys.Legal) == 0 || len(keys.Illegal) == 0 {
		t.Fatal("no keys in contract.json")
	}
	return keys.Legal, keys.Illegal
}

func TestCheckKey(t *testing.T) {
	legal, illegal := sharedKeys(t)
	for _, key := range legal {
		if err := CheckKey(key); err != nil {
			t.Errorf("%q: %v", key, err)
		}
	}
	for _, key := range append(illegal, "a\xff", "\xed\xa0\x80") {
		if CodeOf(CheckKey(key)) != InvalidKey {
			t.Errorf("%q passes", key)
		}
	}
}

func FuzzCheckKey(f *testing.F) {
	legal, illegal := sharedKeys(f)
	for _, key := range append(legal, illegal...) {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if CheckKey(key) != nil {
			return
		}
		if strings.HasPrefix(key, "/") || strings.Contains("/"+key+"/", "/../") || strings.ContainsAny(key, "\\\x00\n") {
			t.Errorf("%q passes", key)
		}
	})
}
