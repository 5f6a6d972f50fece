package s3

import (
	"context"
	"crypto/rand"
	"net/http"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/s3api"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/task"
)

// The ways to create an object: a store may know conditions in one way and not in the other.
const (
	byPut = iota
	byUpload
)

// conditionalLook is the value of the option "conditional_writes" that accepts a look, which is not atomic.
const conditionalLook = "look"

func (s *Store) looks() bool { return s.config.ConditionalWrites == conditionalLook }

// createOnly tells whether the store itself must refuse to replace an object.
func (s *Store) createOnly(opts object.PutOptions) bool { return !opts.Overwrite && !s.looks() }

// looksFirst settles a put that must replace nothing by a look at the key, if the option says so.
func (s *Store) looksFirst(ctx context.Context, put object.Info, opts object.PutOptions) (object.Info, bool, error) {
	if opts.Overwrite || !s.looks() {
		return object.Info{}, false, nil
	}
	there, _, err := s.look(ctx, put.Key)
	if object.CodeOf(err) == object.NotFound {
		return object.Info{}, false, nil
	}
	if err == nil {
		there, err = s.same(ctx, there, put, opts)
	}
	return there, true, err
}

// createsOnly makes sure, once for a client, that its server refuses to replace an object when it is told to.
func (s *Store) createsOnly(ctx context.Context, opts object.PutOptions, way int) error {
	if !s.createOnly(opts) {
		return nil
	}
	known := s.bucket.Traits.Creates[way].Load()
	if known == nil {
		// Aside: a call that is cancelled is left at once, and the objects of the test are removed even so.
		refuses, err := task.Aside(ctx, func(ctx context.Context) (bool, error) { return s.refusesToReplace(ctx, way) }, nil)
		if err != nil {
			return err
		}
		s.bucket.Traits.Creates[way].Store(&refuses)
		known = &refuses
	}
	if !*known {
		return object.Errorf(object.Refused, "this store knows no If-None-Match, so that overwrite=False could replace an object:"+
			" give every object a key that never comes twice, or set conditional_writes to %q, which is not atomic", conditionalLook)
	}
	return nil
}

// refusesToReplace tries it on an object of its own. A store that does not know the condition does not refuse, either.
func (s *Store) refusesToReplace(ctx context.Context, way int) (bool, error) {
	probe := ".gostorage-probe-" + rand.Text()
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
		defer cancel()
		_ = s.Delete(ctx, probe)
	}()
	err := s.putProbe(ctx, probe)
	if err != nil {
		return false, err
	}
	if way == byUpload {
		err = s.completeOver(ctx, probe)
	} else {
		_, _, err = s.bucket.PutObject(ctx, s3api.Put{Key: probe, CreateOnly: true, Probe: true})
	}
	switch code := object.CodeOf(err); {
	case err == nil:
		_, _, err := s.look(ctx, probe)
		if object.CodeOf(err) == object.NotFound { // nothing was there to be replaced: this shows nothing
			err = object.Retryablef(object.Unavailable,
				"whether this store knows If-None-Match did not show: the object that it was tried on is gone; try again")
		}
		return false, err
	case s3api.RefusedWith(err, http.StatusNotImplemented, http.StatusBadRequest):
		return false, nil
	case code == object.Exists || code == object.Conflict:
		return true, nil
	default:
		return false, err
	}
}

// putProbe stores an object that only tests something. A conflict is tried again: gateways to files answer so while
// another client deletes the last other object of a folder.
func (s *Store) putProbe(ctx context.Context, key string) error {
	for attempt := 0; ; attempt++ {
		_, _, err := s.bucket.PutObject(ctx, s3api.Put{Key: key, Probe: true})
		if object.CodeOf(err) != object.Conflict || attempt == 3 {
			return err
		}
		if err := s3api.Pause(ctx, attempt); err != nil {
			return err
		}
	}
}

// completeOver completes an upload at the key of an object, which it must not replace.
func (s *Store) completeOver(ctx context.Context, key string) error {
	upload, _, err := s.bucket.CreateUpload(ctx, s3api.Create{Key: key, Probe: true})
	if err != nil {
		return err
	}
	part := s3api.Part{Number: 1}
	if err = s.bucket.UploadPart(ctx, upload, &part, [][]byte{probeBytes}); err == nil {
		_, _, err = s.bucket.CompleteUpload(ctx, s3api.Complete{Upload: upload, Parts: []s3api.Part{part}, CreateOnly: true})
	}
	if err != nil {
		up := s.newUpload(key, newSummer(checksumOff))
		up.at = upload
		up.undo(ctx)
	}
	return err
}

// probeBytes are the content of an upload that only tests something.
var probeBytes = []byte("probe of django-gostorage")
