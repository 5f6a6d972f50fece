package s3

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/s3api"
)

// Unfinished implements object.Sweeper. It lists the multipart uploads below the prefix.
//
// MinIO lists the uploads of a whole key or of the whole bucket, and answers that there are none below a folder. So if
// a folder seems to have none, the bucket is asked, from the place on where that folder would begin.
func (s *Store) Unfinished(ctx context.Context, after string) iter.Seq2[object.Unfinished, error] {
	return func(yield func(object.Unfinished, error) bool) {
		s.bucket.Ref()
		defer s.bucket.Unref()
		prefix, marker := s.config.Prefix, s.bucket.Path(after)
		known := s.bucket.Traits.Folders.Load()
		if known != nil && !*known {
			prefix = ""
		}
		found, next, err := s.uploads(ctx, prefix, marker)
		if known == nil && err == nil && len(found) == 0 {
			prefix = ""
			if found, next, err = s.uploads(ctx, prefix, marker); object.CodeOf(err) == object.Permission {
				return // a policy for the prefix only: a server that has such policies lists by prefix
			}
		}
		if len(found) > 0 {
			s.bucket.Traits.Folders.Store(new(prefix != ""))
		}
		for count := 0; ; {
			if count += len(found); err == nil && count > mostUnordered {
				err = object.Errorf(object.Refused, "the store lists more than %d unfinished uploads", mostUnordered)
			}
			if err != nil {
				yield(object.Unfinished{}, unlooked("unfinished uploads", err))
				return
			}
			for _, one := range found {
				if !yield(one, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			before := next
			if found, next, err = s.uploads(ctx, prefix, next); err == nil && next != "" && next <= before {
				err = s3api.Unlike("a listing of uploads that does not go on")
			}
		}
	}
}

// uploads gives our uploads on one page of a listing, in the order of their keys, and the marker of the next page.
//
// All uploads of a key are on one page, so the key is marker enough: versitygw refuses the marker of an upload.
func (s *Store) uploads(ctx context.Context, prefix, marker string) (found []object.Unfinished, next string, err error) {
	from := marker
	if from == prefix {
		from = ""
	}
	page, err := s.bucket.ListUploads(ctx, prefix, from)
	if err != nil {
		return nil, "", err
	}
	listed := page.Found
	if page.Truncated {
		if len(listed) == 0 {
			return nil, "", s3api.Unlike("a listing of uploads that does not go on")
		}
		last := listed[len(listed)-1].Key
		if whole := slices.IndexFunc(listed, func(one object.Unfinished) bool { return one.Key == last }); whole > 0 {
			listed = listed[:whole]
		}
		next = listed[len(listed)-1].Key
		if next > s.config.Prefix && !strings.HasPrefix(next, s.config.Prefix) {
			next = "" // nothing of ours comes after it
		}
	}
	for _, one := range listed {
		key, ours := strings.CutPrefix(one.Key, s.config.Prefix)
		if ours && one.Key > marker {
			one.Key = key
			found = append(found, one)
		}
	}
	slices.SortStableFunc(found, func(a, b object.Unfinished) int { return strings.Compare(a.Key, b.Key) })
	return found, next, nil
}

// Inspect implements object.Sweeper. An upload is as old as its newest part.
func (s *Store) Inspect(ctx context.Context, upload *object.Unfinished) error {
	s.bucket.Ref()
	defer s.bucket.Unref()
	upload.Size = 0
	for part, err := range s.bucket.Parts(ctx, s3api.Upload{Key: upload.Key, ID: upload.ID}) {
		if gone(err) {
			return object.Errorf(object.NotFound, "the upload has ended")
		}
		if err != nil {
			return unlooked("the parts of unfinished uploads", err)
		}
		if !part.Again {
			upload.Size += part.Size
		}
		if part.Modified.IsZero() {
			upload.Modified = part.Modified // it may be young
			return nil
		}
		if part.Modified.After(upload.Modified) {
			upload.Modified = part.Modified
		}
	}
	return nil
}

// unlooked gives Unseen for a store that cannot list something, or does not let us: a sweep goes on without.
func unlooked(what string, err error) error {
	failed, ok := errors.AsType[*object.Error](err)
	if !ok || !slices.Contains([]int{http.StatusNotImplemented, http.StatusMethodNotAllowed, http.StatusForbidden}, failed.Status) {
		return err
	}
	return &object.Unseen{What: what, Why: failed}
}

// Abandon implements object.Sweeper.
func (s *Store) Abandon(ctx context.Context, upload object.Unfinished) error {
	s.bucket.Ref()
	defer s.bucket.Unref()
	if err := s.bucket.AbortUpload(ctx, s3api.Upload{Key: upload.Key, ID: upload.ID}); !gone(err) {
		return err
	}
	return nil
}

// gone tells that the server knows of no such upload.
func gone(err error) bool {
	failed, ok := errors.AsType[*object.Error](err)
	return ok && failed.Status == http.StatusNotFound && failed.Code != object.Bucket
}

// sameClock is how far apart two clocks that agree may seem: the server tells the time to the second.
const sameClock = 2 * time.Second

// Now implements object.Sweeper. It is the server's clock or ours, whichever is behind: one of them may be wrong, and
// what is young must not seem old.
func (s *Store) Now() time.Time {
	ahead := s.bucket.Ahead()
	if ahead > -sameClock {
		ahead = 0
	}
	return time.Now().Add(ahead)
}
