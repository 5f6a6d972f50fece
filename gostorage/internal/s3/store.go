// Package s3 keeps objects in a bucket of an S3-compatible store.
//
// An object that fits in one part is stored by one PutObject, signed with the SHA-256 that is computed anyway. A larger
// one is a multipart upload, whose parts the store verifies by their checksums. The body is read once, and no byte is
// copied between the pump and the socket.
//
// # What is written where
//
// Every key begins with the prefix of the area. Beside its bytes, an object has the content type and the metadata of the
// caller, and metadata of ours: gostorage-sha256 (the SHA-256, if it was known before the request), gostorage-upload (a
// random word, by which an upload knows its own object after a lost answer) and gostorage-record (what a temp part
// carries). The test whether a store refuses to replace, check_health and the doctor write objects named .gostorage-probe-…
// and delete them.
//
// # What a failure leaves behind
//
// The object of before, or none; never a part of the new one. An upload that fails or is cancelled is aborted, for at
// most five seconds. If the abort cannot reach the store, or the process is killed, an unfinished upload is left: a
// sweep or a lifecycle rule ends it. A commit whose answer is lost is settled by a look at the key.
//
// # Permissions
//
// s3:PutObject, s3:GetObject, s3:DeleteObject, s3:AbortMultipartUpload and s3:ListMultipartUploadParts on the keys below the
// prefix; s3:ListBucket and s3:ListBucketMultipartUploads on the bucket. docs/settings.md has them as a policy.
//
// The requests are those of package s3api; package prefetch reads ahead; plan.go cuts sources into the parts of a join.
package s3

import (
	"cmp"
	"context"
	"crypto/rand"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/checksum"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/digest"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/flow"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/prefetch"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/s3api"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/s3probe"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/task"
)

const (
	ourMetadata    = "gostorage-"       // begins each name of ours, and no name of a caller
	digestMetadata = "gostorage-sha256" // the SHA-256 of the object, where it was known before the request
	uploadMetadata = "gostorage-upload" // tells an object of this upload from one that another writer put
	recordMetadata = "gostorage-record"
)

// undoTime bounds the work that goes on after a transfer has failed.
const undoTime = 5 * time.Second

// lateTime is how long a request that makes something on the server may go on when nobody wants that any more. What the
// server makes after it was told to undo, nobody would undo.
const lateTime = 2 * time.Second

// Config says where objects are and how they are stored. Fields are the adapter's options; sizes are in bytes.
type Config struct {
	s3api.Config
	PartSize          int64  `json:"part_size"`   // 0: by the size of the object
	Concurrency       int    `json:"concurrency"` // the most parts in flight; 0: defaultConcurrency
	EqualParts        bool   `json:"equal_parts"`
	Checksum          string `json:"checksum"`
	ConditionalWrites string `json:"conditional_writes"` // "required", or "look": a look before a put, which is not atomic
}

// Store is an object.Store below a prefix of a bucket.
type Store struct {
	config Config
	bucket *s3api.Bucket
	ctx    context.Context // of the readers, which outlive the call that opened them
	cancel context.CancelCauseFunc
	// plainOnly is set once the server has refused checksums that "auto" tried.
	plainOnly atomic.Bool

	line prefetch.Line

	// What joins have found out about the server.
	copies       atomic.Pointer[string] // the checksum of an upload that it has copied into; nil before it has
	copiesNot    atomic.Bool            // it cannot copy into uploads
	copiesRanges atomic.Bool            // it copies ranges of sources, as the size of a part has shown
	rangesNot    atomic.Bool            // it copies no ranges, or does not tell the sizes of parts
	equalOnly    atomic.Bool            // it refuses parts of different sizes
}

var (
	_ object.Yielding  = (*Store)(nil)
	_ object.Connected = (*Store)(nil)
)

// Yields implements object.Yielding.
func (s *Store) Yields() {}

// Connections implements object.Connected.
func (s *Store) Connections() *flow.Total { return s.bucket.Connections }

// atATime is how many requests of a call run at a time at most: copies, reads, deletions.
const atATime = 16

// Open makes a Store. It reads files and the environment, never the network.
func Open(config Config) (*Store, error) {
	if config.Concurrency == 0 {
		config.Concurrency = defaultConcurrency
	}
	bucket, err := s3api.Open(config.Config)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	return &Store{config: config, bucket: bucket, ctx: ctx, cancel: cancel}, nil
}

// Close implements object.Store.
func (s *Store) Close() error {
	s.cancel(object.Errorf(object.Closed, "the adapter was closed"))
	s.bucket.Unref()
	return nil
}

// checksum is the algorithm of a multipart upload.
func (s *Store) checksum() string {
	switch {
	case s.config.Checksum != checksumAuto:
		return s.config.Checksum
	case s.plainOnly.Load():
		return checksumSigned
	default:
		return s3api.CRC64NVME
	}
}

// Put implements object.Store.
func (s *Store) Put(ctx context.Context, key string, src object.Source, opts object.PutOptions) (object.Info, error) {
	s.bucket.Ref()
	defer s.bucket.Unref()
	expected, _ := src.Expected()
	size, err := s.partSize(expected)
	if err != nil {
		return object.Info{}, err
	}
	sums := s.summer(s.checksum())
	s.reserve(src, size, s.inFlight(), sums.crc)
	first, ended, err := collect(ctx, src, size, sums.add)
	if err != nil {
		return object.Info{}, err
	}
	var next object.Block
	if !ended && expected <= size { // is the first part all there is?
		next, err = src.Next(ctx, 1)
		if ended = isEnd(err); err != nil && !ended {
			first.release()
			return object.Info{}, err
		}
	}
	if ended {
		defer first.release()
		info := object.Info{Key: key, Record: src.Record()}
		info.Size, info.SHA256 = src.Sum()
		return s.putWhole(ctx, first, info, opts)
	}
	return s.putParts(ctx, key, first, next, sums, src, opts)
}

// inFlight is how many parts an upload begins with.
func (s *Store) inFlight() int {
	return max(1, min(int(s.bucket.Traits.InFlight.Load()), s.config.Concurrency))
}

// reserve says how much memory an upload with so many parts of this size in flight works in.
func (s *Store) reserve(src object.Source, part int64, inFlight int, sum *checksum.CRC) {
	var beside object.Checksum
	if sum != nil {
		beside = sum.Beside
	}
	// One block more than a part: the next block shows whether a part is the last.
	src.Reserve(part+object.BlockSize, (part+object.BlockSize)*int64(inFlight+1), beside)
}

// putWhole stores an object in one request.
func (s *Store) putWhole(
	ctx context.Context, body *part, info object.Info, opts object.PutOptions,
) (object.Info, error) {
	if opts.New {
		info.Version = rand.Text() // only this tells it from an object of the same bytes
	}
	put := s3api.Put{
		Key: info.Key, Description: description(opts, info), Body: body.bytes(), Sums: s3api.Sums{Hash: info.SHA256},
		CreateOnly: s.createOnly(opts),
	}
	switch s.config.Checksum {
	case checksumOff:
		if !s.signs() {
			put.Sums.Hash = s3api.UnsignedPayload
		}
	case s3api.CRC32, s3api.CRC64NVME, s3api.SHA256:
		one := newSummer(s.config.Checksum)
		for _, block := range body.blocks {
			one.add(block)
		}
		put.Sums.Algorithm, put.Sums.Checksum = s.config.Checksum, one.cut().Checksum
	}
	if err := s.createsOnly(ctx, opts, byPut); err != nil {
		return object.Info{}, err
	}
	if there, done, err := s.looksFirst(ctx, info, opts); done {
		return there, err
	}
	for attempt := 0; ; attempt++ {
		_, attempts, err := s.bucket.PutObject(ctx, put)
		if err == nil {
			return info, nil
		}
		there, settled, err := s.settle(ctx, err, attempts, info, info.Version, opts)
		if settled || attempt == 3 {
			return there, err
		}
		if err := s3api.Pause(ctx, attempt); err != nil {
			return object.Info{}, err
		}
	}
}

// settle finds out by a look what became of a commit that did not simply succeed: it may have been carried out though
// its answer was lost, or another writer was first. It is not settled if the same commit may be tried again.
func (s *Store) settle(
	ctx context.Context, failed error, attempts int, put object.Info, upload string, opts object.PutOptions,
) (object.Info, bool, error) {
	if ctx.Err() != nil {
		return object.Info{}, true, failed
	}
	code := object.CodeOf(failed)
	rival := code == object.Exists || code == object.Conflict
	if attempts == 1 && s3api.Refused(failed) && !rival {
		return object.Info{}, true, failed
	}
	look, cancel := context.WithTimeout(ctx, undoTime)
	defer cancel()
	there, told, err := s.look(look, put.Key)
	missing := object.CodeOf(err) == object.NotFound
	switch {
	case err != nil && !missing:
		return object.Info{}, true, failed
	case !missing && upload != "" && told.Metadata[uploadMetadata] == upload:
		return put, true, nil
	case !missing && !opts.New && there.Size == put.Size && there.SHA256 == put.SHA256 &&
		(!opts.Overwrite || sameDescription(told, opts)):
		put.Version = there.Version
		return put, true, nil
	case rival && (missing || code == object.Conflict && object.Retryable(failed) && opts.Overwrite):
		return object.Info{}, false, failed // the rival is gone again, or has not finished
	case missing || opts.Overwrite:
		return object.Info{}, true, failed
	}
	info, err := s.same(ctx, there, put, opts)
	return info, true, err
}

// sameDescription tells whether an object has a put's description: its bytes may have been there before, with another.
func sameDescription(told *s3api.Object, opts object.PutOptions) bool {
	return s3api.Description{ContentType: opts.ContentType, Metadata: opts.Metadata}.Describes(told)
}

// same is opts.Same, even if the server knows no SHA-256 of what is there.
func (s *Store) same(ctx context.Context, there, put object.Info, opts object.PutOptions) (_ object.Info, err error) {
	if there.SHA256 == "" && there.Size == put.Size && !opts.New {
		if there, err = s.digest(ctx, put.Key); err != nil {
			return object.Info{}, err
		}
	}
	return opts.Same(there, put)
}

// digest reads an object whose SHA-256 the server does not know.
func (s *Store) digest(ctx context.Context, key string) (object.Info, error) {
	opened, err := s.Get(ctx, key, object.Whole)
	if err != nil {
		return object.Info{}, err
	}
	defer func() { _ = opened.Close() }()
	info := opened.Info()
	info.SHA256, err = task.Aside(ctx, func(ctx context.Context) (string, error) {
		return digest.SHA256(ctx, digest.NewReader(opened, ""))
	}, nil)
	return info, err
}

// Stat implements object.Store.
func (s *Store) Stat(ctx context.Context, key string) (object.Info, error) {
	s.bucket.Ref()
	defer s.bucket.Unref()
	info, _, err := s.look(ctx, key)
	return info, err
}

// look asks for an object, and also gives all that the answer tells of it.
func (s *Store) look(ctx context.Context, key string) (object.Info, *s3api.Object, error) {
	told, err := s.bucket.HeadObject(ctx, key, false)
	if err != nil {
		return object.Info{}, nil, err
	}
	info := object.Info{Key: key, Size: told.Size, Modified: told.Modified}
	known(&info, told)
	return info, told, nil
}

// known notes what the answer to a request tells of an object.
func known(info *object.Info, told *s3api.Object) {
	info.ETag, info.SHA256 = told.ETag, knownDigest(told.Metadata)
	info.Version, info.Record = told.Metadata[uploadMetadata], told.Metadata[recordMetadata]
	info.ContentType = told.Type
	for name, value := range told.Metadata {
		if strings.HasPrefix(name, ourMetadata) {
			continue
		}
		if info.Metadata == nil {
			info.Metadata = map[string]string{}
		}
		info.Metadata[name] = s3api.HeaderText(value)
	}
}

// knownDigest is the SHA-256 that was stored with an object, or "" if the text is none.
func knownDigest(metadata map[string]string) string {
	sum := metadata[digestMetadata]
	if len(sum) != 64 || strings.Trim(sum, "0123456789abcdef") != "" {
		return ""
	}
	return sum
}

// Delete implements object.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	s.bucket.Ref()
	defer s.bucket.Unref()
	err := s.bucket.DeleteObject(ctx, key)
	if object.CodeOf(err) == object.Unavailable && ctx.Err() == nil { // it may have been carried out
		if s.missing(ctx, key) {
			return nil
		}
	}
	if object.CodeOf(err) == object.NotFound {
		return nil
	}
	return err
}

// missing tells whether the store says that there is no such object. It must say so by an error of S3: the answer to
// HEAD has none, and a web server answers 404 to everything that it does not know.
func (s *Store) missing(ctx context.Context, key string) bool {
	first, err := s.bucket.GetObject(ctx, s3api.Get{Key: key, Until: 1})
	if err == nil {
		_ = first.Body.Close()
	}
	return object.CodeOf(err) == object.NotFound
}

// DeleteMany implements object.Store.
func (s *Store) DeleteMany(ctx context.Context, keys []string) error {
	s.bucket.Ref()
	defer s.bucket.Unref()
	if len(keys) <= s3api.MaxDeleted {
		kept, err := s.deleteBatch(ctx, keys)
		return cmp.Or(err, kept)
	}
	type batch struct {
		keys []string
		kept error
	}
	var batches []*batch
	for some := range slices.Chunk(keys, s3api.MaxDeleted) {
		batches = append(batches, &batch{keys: some})
	}
	lanes := object.Lanes(s, atATime)
	defer lanes.End()
	err := object.Each(ctx, lanes, batches, func(ctx context.Context, one *batch) (err error) {
		one.kept, err = s.deleteBatch(ctx, one.keys)
		return err
	})
	for _, one := range batches {
		err = cmp.Or(err, one.kept)
	}
	return err
}

// deleteBatch makes one request. kept is the error of an object that was not deleted while others were.
func (s *Store) deleteBatch(ctx context.Context, batch []string) (kept, err error) {
	keys := make([]string, 0, len(batch))
	for _, key := range batch {
		if s.bucket.InXML(key) {
			keys = append(keys, key)
		} else if err := s.Delete(ctx, key); err != nil {
			return nil, err
		}
	}
	if len(keys) == 0 {
		return nil, nil
	}
	told, kept, err := s.bucket.DeleteObjects(ctx, keys)
	if object.CodeOf(err) == object.Refused { // some stores have no such request
		return nil, s.deleteEach(ctx, batch)
	}
	if err != nil {
		return nil, err
	}
	for _, key := range keys { // keys that the answer leaves out are deleted one by one
		if !told[key] {
			if err := s.Delete(ctx, key); err != nil && kept == nil {
				return nil, err
			}
		}
	}
	return kept, nil
}

// deleteEach makes a request for each object, as object.DeleteEach does, but some at a time.
func (s *Store) deleteEach(ctx context.Context, keys []string) error {
	var mu sync.Mutex
	var kept error
	_, err := task.Aside(ctx, func(ctx context.Context) (struct{}, error) {
		lanes := object.Lanes(s, atATime)
		defer lanes.End()
		return struct{}{}, object.Each(ctx, lanes, keys, func(ctx context.Context, key string) error {
			err := s.Delete(ctx, key)
			if err == nil || object.Retryable(err) || ctx.Err() != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			kept = cmp.Or(kept, err)
			return nil
		})
	}, nil)
	return cmp.Or(err, kept)
}

// Check implements object.Store.
func (s *Store) Check(ctx context.Context) error {
	s.bucket.Ref()
	defer s.bucket.Unref()
	key := ".gostorage-probe-" + rand.Text()
	if err := s.putProbe(ctx, key); err != nil {
		return err
	}
	return s.bucket.DeleteObject(ctx, key)
}

// Link implements object.Linker.
func (s *Store) Link(ctx context.Context, key string, link object.Link) (object.Linked, error) {
	s.bucket.Ref()
	defer s.bucket.Unref()
	return s.bucket.Presign(ctx, key, link)
}

// Probe implements object.Prober.
func (s *Store) Probe(ctx context.Context, prefix string) ([]object.Finding, error) {
	s.bucket.Ref()
	defer s.bucket.Unref()
	return s3probe.Examine(ctx, s.bucket, s3probe.Options{Checksum: s.checksum(), Auto: s.config.Checksum == checksumAuto}, prefix)
}

// description is what is stored with an object: what the caller says, and our notes of info.
func description(opts object.PutOptions, info object.Info) s3api.Description {
	all := make(map[string]string, len(opts.Metadata)+3)
	maps.Copy(all, opts.Metadata)
	for name, value := range map[string]string{
		digestMetadata: info.SHA256, uploadMetadata: info.Version, recordMetadata: info.Record,
	} {
		if value != "" {
			all[name] = value
		}
	}
	return s3api.Description{ContentType: opts.ContentType, Metadata: all}
}
