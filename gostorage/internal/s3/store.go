// Package s3 keeps objects in a bucket of an S3-compatible store.
//
// What fits in one part is one PutObject, signed with the SHA-256 that is computed anyway; what does not is a multipart
// upload of parts that the server verifies by their checksums. The body is read once, and no byte is copied between
// the pump and the socket. Retries are the SDK's.
package s3

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/checksum"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/coroutine"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/digest"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

const (
	digestMetadata = "gostorage-sha256" // the SHA-256 of the object, where it was known before the request
	uploadMetadata = "gostorage-upload" // tells an object of this upload from one that another writer put
	recordMetadata = "gostorage-record"
)

// undoTime bounds what goes on after a transfer has failed.
const undoTime = 5 * time.Second

// Store is an object.Store below a prefix of a bucket.
type Store struct {
	config Config
	client *client
	ctx    context.Context // of the readers, which outlive the call that opened them
	cancel context.CancelCauseFunc
	// refused is set once the server has refused checksums that "auto" tried.
	refused atomic.Bool

	// What joins have found of the server.
	copies       atomic.Pointer[string] // the checksum of an upload that it has copied into, nil before it has
	copiesNot    atomic.Bool            // it cannot copy into uploads
	copiesRanges atomic.Bool            // it copies ranges of sources, as the size of a part has shown
	rangesNot    atomic.Bool            // it does not, or does not tell the sizes of parts
	equalOnly    atomic.Bool            // it refuses parts of different sizes
}

var _ object.Yielding = (*Store)(nil)

// Yields implements object.Yielding.
func (s *Store) Yields() {}

// Open makes a Store. It reads files and the environment, never the network.
func Open(config Config) (*Store, error) {
	config.Idle = max(2*atATime, 2*config.Concurrency)
	client, err := share(config.connection)
	if err != nil {
		return nil, err
	}
	config.connection = client.resolved
	ctx, cancel := context.WithCancelCause(context.Background())
	return &Store{config: config, client: client, ctx: ctx, cancel: cancel}, nil
}

// Close implements object.Store.
func (s *Store) Close() error {
	s.cancel(object.Errorf(object.Closed, "the adapter was closed"))
	s.client.release()
	return nil
}

func (s *Store) bucket() *string { return &s.config.Bucket }

func (s *Store) path(key string) *string { return aws.String(s.config.Prefix + key) }

// checksum is the algorithm of a multipart upload.
func (s *Store) checksum() string {
	switch {
	case s.config.Checksum != checksumAuto:
		return s.config.Checksum
	case s.refused.Load():
		return checksumSigned
	default:
		return checksumCRC64
	}
}

// Put implements object.Store.
func (s *Store) Put(ctx context.Context, key string, src object.Source, opts object.PutOptions) (object.Info, error) {
	s.client.hold()
	defer s.client.release()
	expected, _ := src.Expected()
	size, err := s.partSize(expected)
	if err != nil {
		return object.Info{}, err
	}
	sums := s.summer(s.checksum())
	s.hold(src, size, sums.crc)
	first, ended, err := collect(ctx, src, size, sums.take)
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

// hold says how much memory an upload in parts of a size works in.
func (s *Store) hold(src object.Source, part int64, sum *checksum.CRC) {
	var beside object.Checksum
	if sum != nil {
		beside = sum.Beside
	}
	// One block more than a part: whether a part is the last shows in the next block.
	src.Hold(part+object.BlockSize, (part+object.BlockSize)*int64(s.config.Concurrency+1), beside)
}

// putWhole stores an object in one request.
func (s *Store) putWhole(
	ctx context.Context, body *part, info object.Info, opts object.PutOptions,
) (object.Info, error) {
	in := &sdk.PutObjectInput{
		Bucket: s.bucket(), Key: s.path(info.Key),
		ContentType: contentType(opts), Metadata: s.metadata(opts, info),
		ServerSideEncryption: types.ServerSideEncryption(s.config.Encryption), SSEKMSKeyId: optional(s.config.KMSKey),
		StorageClass: types.StorageClass(s.config.StorageClass),
	}
	hash := info.SHA256
	switch s.config.Checksum {
	case checksumOff:
		if !s.signs() {
			hash = unsigned
		}
	case checksumCRC32, checksumCRC64, checksumSHA256:
		one := newSummer(s.config.Checksum)
		for _, block := range body.blocks {
			one.take(block)
		}
		sums := one.cut()
		switch s.config.Checksum {
		case checksumCRC32:
			in.ChecksumCRC32 = sums.checksum
		case checksumCRC64:
			in.ChecksumCRC64NVME = sums.checksum
		case checksumSHA256:
			in.ChecksumSHA256 = sums.checksum
		}
	}
	if err := s.createsOnly(ctx, opts, byPut); err != nil {
		return object.Info{}, err
	}
	if there, done, err := s.looksFirst(ctx, info, opts); done {
		return there, err
	}
	in.IfNoneMatch = s.ifNoneMatch(opts)
	for attempt := 0; ; attempt++ {
		about := &request{hash: hash, part: body}
		_, err := perform(ctx, about, in, s.client.putObject)
		if err == nil {
			return info, nil
		}
		there, settled, err := s.settle(ctx, err, about.attempts, info, "", opts)
		if settled || attempt == 3 {
			return there, err
		}
		if err := pause(ctx, attempt); err != nil {
			return object.Info{}, err
		}
	}
}

// settle decides by a look what a commit has come to that did not simply succeed: it may have been carried out though
// its answer was lost, or another writer was first. It is not settled when the same commit may be tried again.
func (s *Store) settle(
	ctx context.Context, failed error, attempts int, put object.Info, upload string, opts object.PutOptions,
) (object.Info, bool, error) {
	if ctx.Err() != nil {
		return object.Info{}, true, failed
	}
	code := object.CodeOf(failed)
	rival := code == object.Exists || code == object.Conflict
	if attempts == 1 && refused(failed) && !rival {
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
	case !missing && there.Size == put.Size && there.SHA256 == put.SHA256 && (!opts.Overwrite || sameDescription(told, opts)):
		put.Version = there.Version
		return put, true, nil
	case rival && (missing || code == object.Conflict && retryable(failed) && opts.Overwrite):
		return object.Info{}, false, failed // the rival is gone again, or has not finished
	case missing || opts.Overwrite:
		return object.Info{}, true, failed
	}
	info, err := s.same(ctx, there, put)
	return info, true, err
}

// sameDescription tells whether an object has the description that a put gives it: the same bytes with another were there before.
func sameDescription(told *sdk.HeadObjectOutput, opts object.PutOptions) bool {
	for name, value := range opts.Metadata {
		if is := told.Metadata[strings.ToLower(name)]; is != headerValue(value) && is != value {
			return false
		}
	}
	return aws.ToString(told.ContentType) == *contentType(opts)
}

// same is object.Same, also where the server knows no SHA-256 of what is there.
func (s *Store) same(ctx context.Context, there, put object.Info) (_ object.Info, err error) {
	if there.SHA256 == "" && there.Size == put.Size {
		if there, err = s.digest(ctx, put.Key); err != nil {
			return object.Info{}, err
		}
	}
	return object.Same(there, put)
}

// digest reads an object of which the server knows no SHA-256.
func (s *Store) digest(ctx context.Context, key string) (object.Info, error) {
	opened, err := s.Get(ctx, key, object.Whole)
	if err != nil {
		return object.Info{}, err
	}
	defer func() { _ = opened.Close() }()
	info := opened.Info()
	info.SHA256, err = coroutine.Aside(ctx, func(ctx context.Context) (string, error) {
		return digest.SHA256(ctx, digest.NewReader(opened, ""))
	}, nil)
	return info, err
}

// Stat implements object.Store.
func (s *Store) Stat(ctx context.Context, key string) (object.Info, error) {
	s.client.hold()
	defer s.client.release()
	info, _, err := s.look(ctx, key)
	return info, err
}

// look asks for an object, and gives all that is told of it too.
func (s *Store) look(ctx context.Context, key string) (object.Info, *sdk.HeadObjectOutput, error) {
	out, err := s.head(ctx, key)
	if err != nil {
		return object.Info{}, nil, err
	}
	info := object.Info{Key: key, Size: *out.ContentLength, Modified: aws.ToTime(out.LastModified)}
	known(&info, out.ETag, out.Metadata)
	return info, out, nil
}

// head describes an object. Where a proxy has dropped its size, a range of a byte tells that.
func (s *Store) head(ctx context.Context, key string) (*sdk.HeadObjectOutput, error) {
	out, err := perform(ctx, &request{}, &sdk.HeadObjectInput{Bucket: s.bucket(), Key: s.path(key)}, s.client.headObject)
	if err != nil || out.ContentLength != nil {
		return out, err
	}
	// An answer of one byte that is no range is all of an object, or a range that does not say so: then all is asked for.
	for _, wanted := range []*string{aws.String("bytes=0-0"), nil} {
		in := &sdk.GetObjectInput{Bucket: s.bucket(), Key: s.path(key), Range: wanted}
		first, err := perform(ctx, &request{}, in, s.client.getObject)
		if refusedWith(err, http.StatusRequestedRangeNotSatisfiable) {
			out.ContentLength = new(int64) // there is no first byte
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		_ = first.Body.Close()
		part, ranged := extentOf(first.ContentRange)
		switch {
		case !sameTag(*first.ETag, *out.ETag):
			return nil, unlikeS3("two ETags of one object")
		case aws.ToString(first.ContentEncoding) != aws.ToString(out.ContentEncoding):
			return nil, unlikeS3("an encoding that an object has at times")
		case ranged && part.size >= 0:
			out.ContentLength = &part.size
			return out, nil
		case !ranged && first.ContentLength != nil && (wanted == nil || *first.ContentLength != 1):
			out.ContentLength = first.ContentLength
			return out, nil
		}
	}
	return nil, unlikeS3("an object without a size")
}

// known notes what the answer to a request tells of an object.
func known(info *object.Info, etag *string, metadata map[string]string) {
	info.ETag, info.SHA256 = aws.ToString(etag), knownDigest(metadata)
	info.Version, info.Record = metadata[uploadMetadata], metadata[recordMetadata]
}

// knownDigest is the SHA-256 that was stored with an object, if it is one.
func knownDigest(metadata map[string]string) string {
	sum := metadata[digestMetadata]
	if len(sum) != 64 || strings.Trim(sum, "0123456789abcdef") != "" {
		return ""
	}
	return sum
}

// Delete implements object.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	s.client.hold()
	defer s.client.release()
	in := &sdk.DeleteObjectInput{Bucket: s.bucket(), Key: s.path(key)}
	_, err := perform(ctx, &request{}, in, s.client.deleteObject)
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

// missing tells whether the store says that there is no such object. It has to say so by an error of S3: the answer to HEAD
// has none, and a web server answers 404 to whatever it does not know.
func (s *Store) missing(ctx context.Context, key string) bool {
	in := &sdk.GetObjectInput{Bucket: s.bucket(), Key: s.path(key), Range: aws.String("bytes=0-0")}
	out, err := perform(ctx, &request{}, in, s.client.getObject)
	if err == nil {
		_ = out.Body.Close()
	}
	return object.CodeOf(err) == object.NotFound
}

// deleteBatch is the most that DeleteObjects takes.
const deleteBatch = 1000

// DeleteMany implements object.Store.
func (s *Store) DeleteMany(ctx context.Context, keys []string) error {
	s.client.hold()
	defer s.client.release()
	var kept error
	for batch := range slices.Chunk(keys, deleteBatch) {
		one, err := s.deleteBatch(ctx, batch)
		if err != nil {
			return err
		}
		if kept == nil {
			kept = one
		}
	}
	return kept
}

// deleteBatch makes one request. kept is why an object of it was not deleted while others were.
func (s *Store) deleteBatch(ctx context.Context, batch []string) (kept, err error) {
	keys := make([]types.ObjectIdentifier, 0, len(batch))
	for _, key := range batch {
		if strings.ContainsAny(*s.path(key), noXML) {
			if err := s.Delete(ctx, key); err != nil {
				return nil, err
			}
			continue
		}
		keys = append(keys, types.ObjectIdentifier{Key: s.path(key)})
	}
	if len(keys) == 0 {
		return nil, nil
	}
	in := &sdk.DeleteObjectsInput{Bucket: s.bucket(), Delete: &types.Delete{Objects: keys}}
	out, err := perform(ctx, &request{md5: true}, in, s.client.deleteObjects)
	if object.CodeOf(err) == object.Refused { // some stores have no such request
		return nil, object.DeleteEach(ctx, s, batch)
	}
	if err != nil {
		return nil, err
	}
	told := map[string]bool{}
	for _, one := range out.Deleted {
		told[aws.ToString(one.Key)] = true
	}
	for _, one := range out.Errors {
		told[aws.ToString(one.Key)] = true
		code := aws.ToString(one.Code)
		failed := answer(code, http.StatusInternalServerError)
		if failed.Code == object.NotFound || kept != nil {
			continue
		}
		if slices.ContainsFunc(keys, func(asked types.ObjectIdentifier) bool { return *asked.Key == aws.ToString(one.Key) }) {
			failed.Key = strings.TrimPrefix(*one.Key, s.config.Prefix)
		}
		failed.Message = describe(code, aws.ToString(one.Message), http.StatusOK, nil)
		kept = failed
	}
	for _, one := range keys { // what the answer leaves out is asked for again
		if key := *one.Key; !told[key] {
			if err := s.Delete(ctx, strings.TrimPrefix(key, s.config.Prefix)); err != nil && kept == nil {
				return nil, err
			}
		}
	}
	return kept, nil
}

// noXML are the characters of legal keys that XML has no form for.
const noXML = "\ufffe\uffff"

// decoded gives a key of an answer as it is.
func decoded(key *string, encoding types.EncodingType) (string, bool) {
	if encoding != types.EncodingTypeUrl {
		return aws.ToString(key), true
	}
	path, err := url.QueryUnescape(aws.ToString(key))
	return path, err == nil
}

// Check implements object.Store.
func (s *Store) Check(ctx context.Context) error {
	s.client.hold()
	defer s.client.release()
	key := s.path(".gostorage-probe-" + rand.Text())
	put := &sdk.PutObjectInput{Bucket: s.bucket(), Key: key}
	if _, err := perform(ctx, &request{}, put, s.client.putObject); err != nil {
		return err
	}
	_, err := perform(ctx, &request{}, &sdk.DeleteObjectInput{Bucket: s.bucket(), Key: key}, s.client.deleteObject)
	return err
}

// metadata is what is kept with an object: the caller's and ours.
func (s *Store) metadata(opts object.PutOptions, info object.Info) map[string]string {
	all := make(map[string]string, len(opts.Metadata)+2)
	for name, value := range opts.Metadata {
		all[name] = headerValue(value)
	}
	for name, value := range map[string]string{
		digestMetadata: info.SHA256, uploadMetadata: info.Version, recordMetadata: info.Record,
	} {
		if value != "" {
			all[name] = value
		}
	}
	return all
}

// wordBytes are those of text in an encoded word of RFC 2047, which has at most 75 characters.
const wordBytes = 45

// headerValue is a text as a header can have it: what is not printable ASCII, has blanks at its ends or looks encoded, goes
// in encoded words. S3 itself answers so what is not ASCII.
func headerValue(text string) string {
	plain := text == strings.Trim(text, " ") && !strings.Contains(text, "=?")
	for _, character := range text {
		plain = plain && ' ' <= character && character <= '~'
	}
	if plain {
		return text
	}
	var words []string
	word := ""
	add := func() { words = append(words, "=?utf-8?b?"+base64.StdEncoding.EncodeToString([]byte(word))+"?=") }
	for _, character := range text {
		if len(word)+utf8.RuneLen(character) > wordBytes {
			add()
			word = ""
		}
		word += string(character)
	}
	add()
	return strings.Join(words, " ")
}

// contentType is that of an object: where nobody has said, what is true of any.
func contentType(opts object.PutOptions) *string {
	return aws.String(orDefault(opts.ContentType, "application/octet-stream"))
}

func optional(value string) *string {
	if value == "" {
		return nil
	}
	return &value
}

// pause waits before a commit is tried again.
func pause(ctx context.Context, attempt int) error { return wait(ctx, 50*time.Millisecond<<attempt) }

func wait(ctx context.Context, delay time.Duration) error {
	_, err := coroutine.Aside(ctx, func(ctx context.Context) (struct{}, error) {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return struct{}{}, context.Cause(ctx)
		case <-timer.C:
			return struct{}{}, nil
		}
	}, nil)
	return err
}
