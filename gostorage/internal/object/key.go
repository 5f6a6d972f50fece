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

// Staging is the folder of unfinished writes at the root of an area on a disk. On no adapter is it a segment of a key,
// nor is a name that some file system takes for it: they fold ASCII case, and drop dots and blanks at the end.
const Staging = ".gostorage-staging"

// CheckKey is the only definition of a legal key. It is relative, and valid UTF-8 within the limits. Its segments are
// not empty, ".", ".." or ours. It has no backslash and no control character (Unicode category Cc). Names that only
// look alike are different names. storage.arguments.check_key gives the same verdict.
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
		case isStaging(segment):
			return invalidKey("it has a segment that is the name of our own folder")
		}
	}
	return nil
}

func isStaging(segment string) bool {
	name := strings.TrimRight(segment, ". ")
	return len(name) == len(Staging) && strings.EqualFold(name, Staging) // of equal length: so only letters of ASCII match
}

func invalidKey(why string) error { return Errorf(InvalidKey, "not a legal key: %s", why) }
