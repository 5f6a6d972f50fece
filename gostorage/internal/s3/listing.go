package s3

import (
	"context"
	"iter"
	"slices"
	"strings"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/s3api"
)

const (
	// mostUnordered bounds the held objects of an unordered listing, some 200 bytes each; and the unfinished uploads.
	mostUnordered = 1_000_000
	// mostBelow bounds the held objects below a folder. A session has 10,000 parts, and what is kept beside them.
	mostBelow = 100_000
)

// List implements object.Store.
func (s *Store) List(ctx context.Context, prefix string) ([]object.Info, error) {
	s.bucket.Ref()
	defer s.bucket.Unref()
	return (&listing{store: s, prefix: prefix, folder: true}).all(ctx, nil)
}

// Walk implements object.Store. A page is given once the next one has come and goes on behind it. Some stores list in
// no order: then the whole listing is held and sorted.
func (s *Store) Walk(ctx context.Context, prefix, after string) iter.Seq2[object.Info, error] {
	return func(yield func(object.Info, error) bool) {
		s.bucket.Ref()
		defer s.bucket.Unref()
		if after > prefix && !strings.HasPrefix(after, prefix) {
			return // behind all of them
		}
		l := &listing{store: s, prefix: prefix}
		if after > prefix { // MinIO lists nothing after a key that does not have the prefix
			l.after = after
		}
		// MinIO refuses a prefix that ends in a dot as a segment. Where XML has no form for a character, the whole
		// segments before it tell what an answer means.
		folder := prefix[:strings.LastIndexByte(prefix, '/')+1]
		if rest := prefix[len(folder):]; rest == "." || rest == ".." || !s.bucket.InXML(prefix) {
			l.prefix = folder
		}
		given := 0
		give := func(page []object.Info) bool {
			for _, info := range page {
				wanted := info.Key > after && strings.HasPrefix(info.Key, prefix)
				if given++; wanted && !yield(info, nil) {
					return false
				}
			}
			return true
		}
		var page []object.Info
		last := ""
		for !s.bucket.Traits.Unordered.Load() {
			next, again, err := l.next(ctx)
			if err != nil {
				yield(object.Info{}, err)
				return
			}
			for _, one := range again {
				if at, found := slices.BinarySearchFunc(page, one, byKey); found {
					page[at] = younger(page[at], one)
				}
			}
			if !ordered(last, next) {
				s.bucket.Traits.Unordered.Store(true)
				page = append(append(page, next...), again...)
				break
			}
			if !give(page) || l.ended && !give(next) || l.ended {
				return
			}
			page = next
			if len(page) > 0 {
				last = page[len(page)-1].Key
			}
		}
		if given > 0 {
			yield(object.Info{}, s3api.Unlike("a listing in no order"))
			return
		}
		found, err := l.all(ctx, page)
		if err != nil {
			yield(object.Info{}, err)
			return
		}
		give(found)
	}
}

func byKey(a, b object.Info) int { return strings.Compare(a.Key, b.Key) }

// ordered tells whether a page is in order, and behind the last key of the pages before it.
func ordered(last string, page []object.Info) bool {
	return slices.IsSortedFunc(page, byKey) && (len(page) == 0 || last < page[0].Key)
}

// listing asks for the objects below a prefix, page by page.
type listing struct {
	store         *Store
	prefix, after string
	folder        bool // all of it is held
	token         string
	fruitless     int
	seen          map[string]bool
	ended         bool
}

// all gives the objects of some pages, and of all pages that follow, in the order of their keys and each once.
func (l *listing) all(ctx context.Context, found []object.Info) ([]object.Info, error) {
	for !l.ended {
		page, again, err := l.next(ctx)
		if err != nil {
			return nil, err
		}
		found = append(append(found, page...), again...)
		switch {
		case !l.folder && len(found) > mostUnordered:
			return nil, object.Errorf(object.Refused,
				"the store lists more than %d objects in no order: use a prefix with fewer of them", mostUnordered)
		case l.folder && len(found) > mostBelow:
			return nil, object.Errorf(object.Refused, "there are more than %d objects in the folder", mostBelow)
		}
	}
	slices.SortStableFunc(found, byKey)
	return merged(found), nil
}

// merged makes one of neighbours that have the same key.
func merged(found []object.Info) []object.Info {
	kept := found[:0]
	for _, one := range found {
		if last := len(kept) - 1; last >= 0 && kept[last].Key == one.Key {
			kept[last] = younger(kept[last], one)
			continue
		}
		kept = append(kept, one)
	}
	return kept
}

// younger is the later entry of a key that a listing has twice, unless the earlier entry has a later time. An entry
// without a time may be young.
func younger(before, after object.Info) object.Info {
	if before.Modified.IsZero() || !after.Modified.IsZero() && before.Modified.After(after.Modified) {
		return before
	}
	return after
}

// next gives the next page: our objects that no earlier page has named, and again those that one has. A listing that
// does not go on is an error, as is an entry that does not say what it is of.
func (l *listing) next(ctx context.Context) (page, again []object.Info, err error) {
	after := l.after
	if l.store.bucket.Traits.Unordered.Load() {
		after = ""
	}
	told, err := l.store.bucket.ListObjects(ctx, l.prefix, after, l.token)
	if err != nil {
		return nil, nil, err
	}
	last, fresh := "", false
	if l.seen == nil {
		l.seen = map[string]bool{}
	}
	known := map[string]bool{}
	for _, info := range told.Objects {
		last, known[info.Key] = max(last, info.Key), true
		if !l.seen[info.Key] {
			fresh = true
		}
		if object.CheckKey(info.Key) != nil {
			continue // no object of ours: no key can name it
		}
		if l.seen[info.Key] {
			again = append(again, info)
		} else {
			page = append(page, info)
		}
	}
	if slices.IsSortedFunc(page, byKey) {
		page = merged(page)
	}
	l.remember(known)
	return page, again, l.goOn(told, last, fresh)
}

// remember keeps what a page has named. For an ordered listing, the last page that named something is enough.
func (l *listing) remember(known map[string]bool) {
	if l.store.bucket.Traits.Unordered.Load() || l.folder {
		for key := range known {
			l.seen[key] = true
		}
		return
	}
	if len(known) > 0 {
		l.seen = known
	}
}

// goOn notes where the next page begins: behind the token or, without a token, behind the last key.
func (l *listing) goOn(page *s3api.Page, last string, fresh bool) error {
	if l.fruitless++; fresh {
		l.fruitless = 0
	}
	switch {
	case !page.Truncated:
		l.ended = true
		return nil
	case l.fruitless > s3api.MaxFruitless, page.Token != "" && page.Token == l.token, page.Token == "" && (!fresh || last <= l.after):
		return s3api.Unlike("a listing that does not go on")
	case page.Token == "":
		l.token, l.after = "", last
	default:
		l.token = page.Token
	}
	return nil
}
