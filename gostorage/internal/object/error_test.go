package object

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestWireHoldsEveryField(t *testing.T) {
	err := Wire("put", "a|b", &Error{Code: Full, Message: "50% | \n\x00\xff", Retryable: true})
	if got, want := err.Error(), "E1|full|put|a%7Cb|0||1|50%25%20%7C%20%0A%00%EF%BF%BD"; got != want {
		t.Errorf("%s\n%s", got, want)
	}
}

func FuzzWire(f *testing.F) {
	f.Add("full", "put", "a|b", 503, "id", true, "50% | \n\x00\xff")
	f.Add("", "", "", 0, "", false, "")
	f.Add("\xed\xa0\x80", "%7C", "é+ &", -1, "|||", true, "\u2028")
	f.Fuzz(func(t *testing.T, code, op, key string, status int, id string, retryable bool, message string) {
		known := &Error{
			Code: Code(code), Op: op, Key: key, Status: status, RequestID: id, Retryable: retryable, Message: message,
		}
		wire := Wire("", "", fmt.Errorf("wrapped: %w", known)).Error()
		want := []string{"E1", code, op, key, strconv.Itoa(status), id, "0", message}
		if retryable {
			want[6] = "1"
		}
		got := strings.Split(wire, "|")
		for i, field := range got {
			text, err := url.PathUnescape(field)
			if err != nil {
				t.Fatalf("%q: %v", field, err)
			}
			got[i] = text
		}
		for i, field := range want {
			want[i] = strings.ToValidUTF8(field, "\uFFFD")
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q crosses as %q", want, got)
		}
	})
}
