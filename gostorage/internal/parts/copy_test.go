package parts

import (
	"bytes"
	"maps"
	"testing"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/digest"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// Stores that copy, that do not, and one that knows no digests.
func copying() map[string]object.Store {
	stores := finals()
	stores["forgetful"] = newForgetful()
	return stores
}

func TestCopies(t *testing.T) {
	for kind, in := range copying() {
		t.Run(kind, func(t *testing.T) {
			pipe := pumped(one, false)
			defer pipe.Close()
			told := object.PutOptions{Overwrite: true, ContentType: "text/plain", Metadata: map[string]string{"k": "v"}}
			if _, err := in.Put(t.Context(), "a", pipe, told); err != nil {
				t.Fatal(err)
			}
			plain(t, in, "there", two)
			anything := Wanted{"a", digest.Expect{Size: -1}}
			for _, key := range []string{"b", "there", "a"} {
				info, err := Copy(t.Context(), in, anything, key, key != "b")
				if err != nil || info.SHA256 != sum(one) || info.Size != int64(len(one)) {
					t.Fatalf("the copy to %q is %+v, %v", key, info, err)
				}
				info, err = in.Stat(t.Context(), key)
				if err != nil || info.ContentType != "text/plain" || !maps.Equal(info.Metadata, told.Metadata) {
					t.Errorf("the copy to %q is described as %+v, %v", key, info, err)
				}
				if is := content(t, in, key); !bytes.Equal(is, one) {
					t.Errorf("%q has %d other bytes", key, len(is))
				}
			}
			plain(t, in, "b", two)
			for want, try := range map[object.Code]func() error{
				object.Exists: func() error {
					_, err := Copy(t.Context(), in, anything, "b", false)
					return err
				},
				object.NotFound: func() error {
					_, err := Copy(t.Context(), in, Wanted{"missing", digest.Expect{Size: -1}}, "b", true)
					return err
				},
				object.Mismatch: func() error {
					_, err := Copy(t.Context(), in, Wanted{"a", digest.Expect{Size: -1, SHA256: sum(other)}}, "b", true)
					return err
				},
			} {
				if err := try(); object.CodeOf(err) != want {
					t.Errorf("%v in place of %s", err, want)
				}
			}
			if is := content(t, in, "b"); !bytes.Equal(is, two) {
				t.Error("a copy that failed has changed something")
			}
		})
	}
}

func TestAdopts(t *testing.T) {
	for kind, in := range copying() {
		t.Run(kind, func(t *testing.T) {
			plain(t, in, "a", one)
			for _, expect := range []digest.Expect{{Size: -1}, {Size: int64(len(one)), SHA256: sum(one)}} {
				info, err := Adopt(t.Context(), in, Wanted{"a", expect})
				if err != nil || info.SHA256 != sum(one) || !bytes.Equal(content(t, in, "a"), one) {
					t.Errorf("it is %+v, %v", info, err)
				}
			}
			for _, expect := range []digest.Expect{{Size: 1}, {Size: -1, SHA256: sum(other)}} {
				if info, err := Adopt(t.Context(), in, Wanted{"a", expect}); object.CodeOf(err) != object.Mismatch {
					t.Errorf("it is %+v, %v", info, err)
				}
			}
		})
	}
}
