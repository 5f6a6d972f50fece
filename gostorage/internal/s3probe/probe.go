// Package s3probe finds out what an S3 store can do of what the adapters count on: the questions of the doctor. It
// writes small objects and uploads below a folder, and removes them again.
package s3probe

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"hash/crc32"
	"io"
	"time"

	"github.com/minio/crc64nvme"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/s3api"
)

// cleanTime bounds the work that goes on after a probe was cancelled.
const cleanTime = 5 * time.Second

// Options are the adapter's options that decide what is asked.
type Options struct {
	Checksum string // of the parts of uploads: an algorithm of s3api, "signed" or "off"
	Auto     bool   // uploads try this first, and nobody has chosen it
}

// probe examines the store by requests of its own.
type probe struct {
	ctx     context.Context
	bucket  *s3api.Bucket
	options Options
	folder  string            // of its keys
	uploads map[string]string // running uploads: the key of each, by its id
	keys    map[string]bool   // objects that it made

	silent error  // the error of a server that gave no answer, or nil
	small  string // the key of an object that is there
	tag    string // its ETag
	listed bool   // whether the server lists uploads by their folder
}

// Examine makes the requests, with keys below a prefix. Its error is that of a context that has ended: all about the
// store is in the findings.
func Examine(ctx context.Context, bucket *s3api.Bucket, options Options, prefix string) ([]object.Finding, error) {
	p := &probe{
		ctx: ctx, bucket: bucket, options: options, folder: prefix, small: prefix + "small",
		uploads: map[string]string{}, keys: map[string]bool{},
	}
	defer p.clean()
	return p.examine()
}

// once is the context of requests that are not sent again: a refusal is an answer.
func (p *probe) once() context.Context { return s3api.Once(p.ctx) }

func (p *probe) examine() ([]object.Finding, error) {
	found := make([]object.Finding, 0, 24)
	look := func(name string, required bool, look func() object.Finding) bool {
		finding := object.Examine(name, required, look)
		found = append(found, finding)
		return finding.OK != nil && *finding.OK
	}
	look("credentials", true, p.credentials)
	look("bucket", false, p.where)
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

// clean removes what the probe made, even if the probe was cancelled.
func (p *probe) clean() {
	if len(p.uploads) == 0 && len(p.keys) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), cleanTime)
	defer cancel()
	p.ctx = ctx
	for id := range p.uploads {
		_ = p.forget(id)
	}
	for key := range p.keys {
		_ = p.bucket.DeleteObject(ctx, key)
	}
}

func hashOf(data string) string {
	sum := sha256.Sum256([]byte(data))
	return hex.EncodeToString(sum[:])
}

// sumsOf are what a server has to verify of some bytes.
func sumsOf(data, algorithm string) s3api.Sums {
	var sum hash.Hash
	switch algorithm {
	case s3api.CRC32:
		sum = crc32.NewIEEE()
	case s3api.CRC64NVME:
		sum = crc64nvme.New()
	default:
		whole := sha256.Sum256([]byte(data))
		return s3api.Sums{
			Algorithm: algorithm, Checksum: base64.StdEncoding.EncodeToString(whole[:]), Hash: hex.EncodeToString(whole[:]),
		}
	}
	_, _ = io.WriteString(sum, data)
	return s3api.Sums{
		Algorithm: algorithm, Checksum: base64.StdEncoding.EncodeToString(sum.Sum(nil)), Hash: s3api.UnsignedPayload,
	}
}

// put sends an object whose signature is over the bytes of signed.
func (p *probe) put(key, data, signed string, createOnly bool) (etag string, err error) {
	put := s3api.Put{
		Key: key, Body: [][]byte{[]byte(data)}, Sums: s3api.Sums{Hash: hashOf(signed)}, CreateOnly: createOnly, Probe: true,
	}
	if p.options.Checksum == off {
		put.Sums.Hash = s3api.UnsignedPayload
	}
	p.keys[key] = true
	etag, _, err = p.bucket.PutObject(p.once(), put)
	return etag, err
}

// get reads an object, or a range of it.
func (p *probe) get(get s3api.Get) (*s3api.Object, []byte, error) {
	out, err := p.bucket.GetObject(p.ctx, get)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = out.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(out.Body, 1<<20))
	if err != nil {
		err = s3api.BodyError(err)
	}
	return out, data, err
}

func (p *probe) create(key, algorithm string) (s3api.Upload, error) {
	upload, _, err := p.bucket.CreateUpload(p.ctx, s3api.Create{Key: key, Algorithm: algorithm, Probe: true})
	if err == nil {
		p.uploads[upload.ID] = key
	}
	return upload, err
}

// part sends a part whose checksums are over the bytes of signed.
func (p *probe) part(upload s3api.Upload, data, signed, algorithm string) (s3api.Part, error) {
	part := s3api.Part{Number: 1, Sums: sumsOf(signed, algorithm)}
	err := p.bucket.UploadPart(p.once(), upload, &part, [][]byte{[]byte(data)})
	return part, err
}

// complete ends an upload of one part.
func (p *probe) complete(upload s3api.Upload, part s3api.Part, sums s3api.Sums, createOnly bool) error {
	p.keys[upload.Key] = true
	_, _, err := p.bucket.CompleteUpload(p.once(), s3api.Complete{
		Upload: upload, Parts: []s3api.Part{part}, Sums: sums, CreateOnly: createOnly,
	})
	if err == nil {
		delete(p.uploads, upload.ID)
	}
	return err
}

// forget aborts an upload, unless it is completed.
func (p *probe) forget(id string) error {
	key, open := p.uploads[id]
	if !open {
		return nil
	}
	err := p.bucket.AbortUpload(p.ctx, s3api.Upload{Key: key, ID: id})
	if err == nil {
		delete(p.uploads, id)
	}
	return err
}

// uploadsBelow lists unfinished uploads whose keys begin with prefix, at most ten pages.
func (p *probe) uploadsBelow(prefix string) (found []object.Unfinished, all bool, err error) {
	path, marker := p.bucket.Path(prefix), ""
	for range 10 {
		page, err := p.bucket.ListUploads(p.ctx, path, marker)
		if err != nil {
			return nil, false, err
		}
		found = append(found, page.Found...)
		if !page.Truncated || len(page.Found) == 0 {
			return found, true, nil
		}
		marker = page.Found[len(page.Found)-1].Key
	}
	return found, false, nil
}
