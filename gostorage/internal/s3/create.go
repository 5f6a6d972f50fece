package s3

import (
	"context"
	"crypto/rand"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/coroutine"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// The ways in which an object is created: a store may know conditions by one and not by the other.
const (
	byPut = iota
	byUpload
)

// conditionalLook is the value of the option "conditional_writes" for who accepts a look that is not atomic.
const conditionalLook = "look"

func (s *Store) looks() bool { return s.config.ConditionalWrites == conditionalLook }

// ifNoneMatch is the condition of a put that must replace nothing.
func (s *Store) ifNoneMatch(opts object.PutOptions) *string {
	if opts.Overwrite || s.looks() {
		return nil
	}
	return aws.String("*")
}

// looksFirst settles, where that is the option, a put that must replace nothing by a look at what is there.
func (s *Store) looksFirst(ctx context.Context, put object.Info, opts object.PutOptions) (object.Info, bool, error) {
	if opts.Overwrite || !s.looks() {
		return object.Info{}, false, nil
	}
	there, _, err := s.look(ctx, put.Key)
	if object.CodeOf(err) == object.NotFound {
		return object.Info{}, false, nil
	}
	if err == nil {
		there, err = s.same(ctx, there, put)
	}
	return there, true, err
}

// createsOnly makes sure, once for a client, that its server refuses to replace what is there when it is told so.
func (s *Store) createsOnly(ctx context.Context, opts object.PutOptions, way int) error {
	if opts.Overwrite || s.looks() {
		return nil
	}
	known := s.client.creates[way].Load()
	if known == nil {
		// Aside, for a call that is cancelled is left at once, and what was tried is cleared away even so.
		refuses, err := coroutine.Aside(ctx, func(ctx context.Context) (bool, error) { return s.refusesToReplace(ctx, way) }, nil)
		if err != nil {
			return err
		}
		s.client.creates[way].Store(&refuses)
		known = &refuses
	}
	if !*known {
		return object.Errorf(object.Refused, "this store knows no If-None-Match, so that overwrite=False could replace an object:"+
			" give every object a key that never comes twice, or set conditional_writes to %q, which is not atomic", conditionalLook)
	}
	return nil
}

// refusesToReplace tries it, on an object of its own. A store without the condition does not refuse either.
func (s *Store) refusesToReplace(ctx context.Context, way int) (bool, error) {
	probe := ".gostorage-probe-" + rand.Text()
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
		defer cancel()
		_ = s.Delete(ctx, probe)
	}()
	put := &sdk.PutObjectInput{
		Bucket: s.bucket(), Key: s.path(probe),
		ServerSideEncryption: types.ServerSideEncryption(s.config.Encryption), SSEKMSKeyId: optional(s.config.KMSKey),
	}
	if _, err := perform(ctx, &request{}, put, s.client.putObject); err != nil {
		return false, err
	}
	var err error
	if way == byUpload {
		err = s.completeOver(ctx, probe)
	} else {
		put.IfNoneMatch = aws.String("*")
		_, err = perform(ctx, &request{}, put, s.client.putObject)
	}
	switch code := object.CodeOf(err); {
	case err == nil:
		_, _, err := s.look(ctx, probe)
		if object.CodeOf(err) == object.NotFound { // nothing was there to be replaced: it shows nothing
			err = object.Retryablef(object.Unavailable,
				"whether this store knows If-None-Match did not show: the object that it was tried on is gone; try again")
		}
		return false, err
	case refusedWith(err, http.StatusNotImplemented, http.StatusBadRequest):
		return false, nil
	case code == object.Exists || code == object.Conflict:
		return true, nil
	default:
		return false, err
	}
}

// completeOver ends an upload at a key where an object is, and must not replace it.
func (s *Store) completeOver(ctx context.Context, key string) error {
	up := s.newUpload(key, newSummer(checksumOff))
	created, err := perform(ctx, &request{}, &sdk.CreateMultipartUploadInput{
		Bucket: s.bucket(), Key: s.path(key),
		ServerSideEncryption: types.ServerSideEncryption(s.config.Encryption), SSEKMSKeyId: optional(s.config.KMSKey),
	}, s.client.createUpload)
	if err != nil {
		return err
	}
	up.id = created.UploadId
	defer up.undo(ctx)
	number := aws.Int32(1)
	part, err := perform(ctx, &request{}, &sdk.UploadPartInput{
		Bucket: s.bucket(), Key: s.path(key), UploadId: up.id, PartNumber: number, Body: strings.NewReader(greeting),
	}, s.client.uploadPart)
	if err != nil {
		return err
	}
	done := []types.CompletedPart{{PartNumber: number, ETag: part.ETag}}
	_, err = perform(ctx, &request{}, &sdk.CompleteMultipartUploadInput{
		Bucket: s.bucket(), Key: s.path(key), UploadId: up.id, IfNoneMatch: aws.String("*"),
		MultipartUpload: &types.CompletedMultipartUpload{Parts: done},
	}, s.client.completeUpload)
	if err == nil {
		up.id = nil
	}
	return err
}
