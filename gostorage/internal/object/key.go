package object

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of a key: a database column of 500 characters, S3's 1,024 bytes less a prefix, and a file name of 255 bytes.
const (
	MaxKeyCharacters = 500
	MaxKeyBytes      = 900
	MaxSegmentBytes  = 255
)

// CheckKey is the only definition of a legal key: relative, valid UTF-8 within the limits, of segments that are not
// empty, "." or "..", with no backslash and no control character (Unicode category Cc). Names that merely look alike
// are different names. storage.base.check_key gives the same verdict.
func CheckKey(key string) error {
	switch {
	case key == "":
		return invalidKey("it is empty")
	case len(key) > MaxKeyBytes:
		return invalidKey("it is longer than 900 bytes")
	case !utf8.ValidString(key):
		return invalidKey("it is not valid UTF-8")
	case utf8.RuneCountInString(key) > MaxKeyCharacters:
		return invalidKey("it is longer than 500 characters")
	}
	for _, r := range key {
		if r == '\\' || unicode.Is(unicode.Cc, r) {
			return invalidKey("it holds a backslash or a control character")
		}
	}
	for segment := range strings.SplitSeq(key, "/") {
		switch {
		case segment == "" || segment == "." || segment == "..":
			return invalidKey("it has an empty, '.' or '..' segment")
		case len(segment) > MaxSegmentBytes:
			return invalidKey("it has a segment longer than 255 bytes")
		}
	}
	return nil
}

func invalidKey(why string) error { return Errorf(InvalidKey, "not a legal key: %s", why) }
