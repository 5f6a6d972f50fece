package s3

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"hash/crc32"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/minio/crc64nvme"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// probe examines the store by requests of its own, which the SDK makes as it comes.
type probe struct {
	ctx     context.Context
	store   *Store
	client  *sdk.Client
	answers *answers
	folder  string            // of its keys
	uploads map[string]string // those under way: the key of each, by its id
	keys    map[string]bool   // objects that it made

	silent error  // of a server that gave no answer, or nil
	small  string // the key of an object that is there
	tag    string // its ETag
	listed bool   // whether the server lists uploads by their folder
}

var _ object.Prober = (*Store)(nil)

// Probe implements object.Prober.
func (s *Store) Probe(ctx context.Context, prefix string) ([]object.Finding, error) {
	s.client.hold()
	defer s.client.release()
	answers := &answers{through: s.client.transport}
	options := sdk.Options{
		Region:                     s.client.region,
		Credentials:                s.client.credentials,
		HTTPClient:                 &http.Client{Transport: answers, CheckRedirect: stay},
		UsePathStyle:               s.config.pathStyle(),
		RetryMaxAttempts:           s.config.MaxAttempts,
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
		APIOptions: []func(*middleware.Stack) error{func(stack *middleware.Stack) error {
			_, err := stack.Finalize.Swap("ComputePayloadHash", payload{})
			return err
		}},
	}
	if s.config.Endpoint != "" {
		options.BaseEndpoint = &s.config.Endpoint
	}
	p := &probe{
		ctx: ctx, store: s, client: sdk.New(options), answers: answers, folder: prefix, small: prefix + "small",
		uploads: map[string]string{}, keys: map[string]bool{},
	}
	defer p.clean()
	return p.examine()
}

// stay follows no redirect: a signature is for one host.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// answers notes the clocks at the last answer.
type answers struct {
	through http.RoundTripper
	theirs  time.Time // zero: it did not tell
	ours    time.Time // zero: there was no answer
}

// RoundTrip implements http.RoundTripper.
func (a *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	before := time.Now()
	response, err := a.through.RoundTrip(r)
	if err == nil {
		a.theirs, _ = http.ParseTime(response.Header.Get("Date"))
		a.ours = before.Add(time.Since(before) / 2)
	}
	return response, err
}

type hashKey struct{}

// payload signs a request for the hash that it was given, whatever its body is.
type payload struct{}

func (payload) ID() string { return "ComputePayloadHash" }

func (payload) HandleFinalize(
	ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler,
) (middleware.FinalizeOutput, middleware.Metadata, error) {
	if hash, ok := ctx.Value(hashKey{}).(string); ok {
		return next.HandleFinalize(v4.SetPayloadHash(ctx, hash), in)
	}
	return (&v4.ComputePayloadSHA256{}).HandleFinalize(ctx, in, next)
}

// once keeps the SDK from trying again: a refusal is an answer.
func once(o *sdk.Options) { o.Retryer = aws.NopRetryer{} }

func (p *probe) examine() ([]object.Finding, error) {
	found := make([]object.Finding, 0, 24)
	look := func(name string, required bool, look func() object.Finding) bool {
		finding := object.Examine(name, required, look)
		found = append(found, finding)
		return aws.ToBool(finding.OK)
	}
	look("credentials", true, p.credentials)
	look("bucket", false, p.bucket)
	look("clock", false, p.clock)
	found[len(found)-1].Required = p.skew().Abs() >= mostSkew
	if !look(object.Reach, true, p.reach) {
		if p.ctx.Err() != nil {
			return nil, context.Cause(p.ctx)
		}
		return found, nil
	}
	for _, one := range []struct {
		name     string
		required bool
		look     func() object.Finding
	}{
		{"latency", false, p.latency},
		{"description", true, p.description},
		{"range", true, p.ranges},
		{"conditional_put", true, p.conditionalPut},
		{"conditional_complete", true, p.conditionalComplete},
		{"altered_put", true, p.alteredPut},
		{"altered_part", true, p.alteredPart},
		{"whole_checksum", false, p.wholeChecksum},
		{"copy_part", false, p.copyPart},
		{"abort", true, p.abort},
		{"delete_batch", false, p.deleteBatch},
		{"versions", false, p.versions},
		{"unfinished_uploads", false, p.unfinished},
	} {
		look(one.name, one.required, one.look)
		if p.ctx.Err() != nil {
			return nil, context.Cause(p.ctx)
		}
	}
	return found, nil
}

// clean takes away what the probe made, also when it was cancelled.
func (p *probe) clean() {
	if len(p.uploads) == 0 && len(p.keys) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), undoTime)
	defer cancel()
	p.ctx = ctx
	for id := range p.uploads {
		_ = p.forget(id)
	}
	for key := range p.keys {
		_ = p.store.Delete(ctx, key)
	}
}

// withMD5 gives DeleteObjects the checksum that the adapter sends too.
func withMD5(o *sdk.Options) {
	o.APIOptions = append(slices.Clone(o.APIOptions), smithyhttp.AddContentChecksumMiddleware,
		func(stack *middleware.Stack) error {
			_, err := stack.Finalize.Remove("AWSChecksum:ComputeInputPayloadChecksum")
			return err
		})
}

func hashOf(data string) string {
	sum := sha256.Sum256([]byte(data))
	return hex.EncodeToString(sum[:])
}

// put sends an object whose signature is over the bytes of signed.
func (p *probe) put(key, data, signed string, change func(*sdk.PutObjectInput)) (*sdk.PutObjectOutput, error) {
	s := p.store
	in := &sdk.PutObjectInput{
		Bucket: s.bucket(), Key: s.path(key), Body: strings.NewReader(data),
		ServerSideEncryption: types.ServerSideEncryption(s.config.Encryption), SSEKMSKeyId: optional(s.config.KMSKey),
	}
	if change != nil {
		change(in)
	}
	hash := hashOf(signed)
	if s.config.Checksum == checksumOff {
		hash = unsigned
	}
	p.keys[key] = true
	send := func(options ...func(*sdk.Options)) (*sdk.PutObjectOutput, error) {
		return p.client.PutObject(context.WithValue(p.ctx, hashKey{}, hash), in, append(options, once)...)
	}
	out, err := send()
	if wantsMD5(err) {
		out, err = send(withMD5)
	}
	if err == nil && !given(out.ETag) {
		return nil, unlikeS3("an object without an ETag")
	}
	return out, classify(err)
}

func (p *probe) get(key string, change func(*sdk.GetObjectInput)) (*sdk.GetObjectOutput, []byte, error) {
	in := &sdk.GetObjectInput{Bucket: p.store.bucket(), Key: p.store.path(key)}
	if change != nil {
		change(in)
	}
	out, err := p.client.GetObject(p.ctx, in)
	if err != nil {
		return nil, nil, classify(err)
	}
	defer func() { _ = out.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(out.Body, 1<<20))
	if err != nil {
		err = network(err)
	}
	return out, data, err
}

func (p *probe) create(key, algorithm string) (string, error) {
	s := p.store
	in := &sdk.CreateMultipartUploadInput{
		Bucket: s.bucket(), Key: s.path(key),
		ServerSideEncryption: types.ServerSideEncryption(s.config.Encryption), SSEKMSKeyId: optional(s.config.KMSKey),
	}
	in.ChecksumAlgorithm, in.ChecksumType = declared(algorithm)
	out, err := p.client.CreateMultipartUpload(p.ctx, in)
	if err != nil {
		return "", classify(err)
	}
	if !given(out.UploadId) {
		return "", unlikeS3("an upload without an UploadId")
	}
	id := *out.UploadId
	p.uploads[id] = key
	return id, nil
}

// part sends a part whose checksums are over the bytes of signed.
func (p *probe) part(id, data, signed, algorithm string) (types.CompletedPart, error) {
	sums := sumsOf(signed, algorithm)
	done := types.CompletedPart{PartNumber: aws.Int32(1)}
	in := &sdk.UploadPartInput{
		Bucket: p.store.bucket(), Key: p.store.path(p.uploads[id]), UploadId: &id, PartNumber: done.PartNumber,
		Body: strings.NewReader(data),
	}
	sums.onPart(in)
	out, err := p.client.UploadPart(context.WithValue(p.ctx, hashKey{}, sums.hash), in, once)
	if err != nil {
		return done, classify(err)
	}
	if !given(out.ETag) {
		return done, unlikeS3("a part without an ETag")
	}
	done.ETag = out.ETag
	sums.onCompleted(&done)
	return done, nil
}

// sumsOf are what a server has to verify of some bytes.
func sumsOf(data, algorithm string) sums {
	var sum hash.Hash
	switch algorithm {
	case checksumCRC32:
		sum = crc32.NewIEEE()
	case checksumCRC64:
		sum = crc64nvme.New()
	default:
		whole := sha256.Sum256([]byte(data))
		return sums{algorithm: algorithm, checksum: base64Of(whole[:]), hash: hashOf(data)}
	}
	_, _ = io.WriteString(sum, data)
	return sums{algorithm: algorithm, checksum: base64Of(sum.Sum(nil)), hash: unsigned}
}

// complete ends an upload of one part.
func (p *probe) complete(id string, part types.CompletedPart, change func(*sdk.CompleteMultipartUploadInput)) error {
	key := p.uploads[id]
	in := &sdk.CompleteMultipartUploadInput{
		Bucket: p.store.bucket(), Key: p.store.path(key), UploadId: &id,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{part}},
	}
	if change != nil {
		change(in)
	}
	p.keys[key] = true
	out, err := p.client.CompleteMultipartUpload(p.ctx, in, once)
	if err == nil {
		delete(p.uploads, id)
		if !given(out.ETag) {
			return unlikeS3("an object without an ETag")
		}
	}
	return classify(err)
}

// forget aborts an upload, unless it is completed.
func (p *probe) forget(id string) error {
	key, open := p.uploads[id]
	if !open {
		return nil
	}
	in := &sdk.AbortMultipartUploadInput{Bucket: p.store.bucket(), Key: p.store.path(key), UploadId: &id}
	_, err := p.client.AbortMultipartUpload(p.ctx, in)
	if err == nil {
		delete(p.uploads, id)
	}
	return classify(err)
}

// uploadsBelow lists unfinished uploads whose keys begin with prefix, at most ten pages.
func (p *probe) uploadsBelow(prefix string) (found []types.MultipartUpload, all bool, err error) {
	in := &sdk.ListMultipartUploadsInput{Bucket: p.store.bucket(), Prefix: &prefix}
	for range 10 {
		page, err := p.client.ListMultipartUploads(p.ctx, in)
		if err != nil {
			return nil, false, classify(err)
		}
		found = append(found, page.Uploads...)
		if !aws.ToBool(page.IsTruncated) || len(page.Uploads) == 0 {
			return found, true, nil
		}
		in.KeyMarker, in.UploadIdMarker = page.NextKeyMarker, page.NextUploadIdMarker
	}
	return found, false, nil
}
