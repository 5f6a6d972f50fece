package s3api

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"iter"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/encoding/httpbinding"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// The requests to a bucket. Each method makes one, with retries, and gives an answer that answers.go has compared with
// the request. Keys are below the bucket's prefix; errors are *object.Error.

// operations are the operations of the SDK that we use.
type operations struct {
	putObject      operation[sdk.PutObjectInput, stored]
	getObject      operation[sdk.GetObjectInput, Object]
	headObject     operation[sdk.HeadObjectInput, Object]
	headBucket     operation[sdk.HeadBucketInput, sdk.HeadBucketOutput]
	deleteObject   operation[sdk.DeleteObjectInput, struct{}]
	deleteObjects  operation[sdk.DeleteObjectsInput, sdk.DeleteObjectsOutput]
	listObjects    operation[sdk.ListObjectsV2Input, sdk.ListObjectsV2Output]
	createUpload   operation[sdk.CreateMultipartUploadInput, sdk.CreateMultipartUploadOutput]
	uploadPart     operation[sdk.UploadPartInput, stored]
	copyPart       operation[sdk.UploadPartCopyInput, sdk.UploadPartCopyOutput]
	copyObject     operation[sdk.CopyObjectInput, sdk.CopyObjectOutput]
	completeUpload operation[sdk.CompleteMultipartUploadInput, sdk.CompleteMultipartUploadOutput]
	abortUpload    operation[sdk.AbortMultipartUploadInput, struct{}]
	listUploads    operation[sdk.ListMultipartUploadsInput, sdk.ListMultipartUploadsOutput]
	listParts      operation[sdk.ListPartsInput, sdk.ListPartsOutput]
}

func prepare(client *sdk.Client, by *attempts) operations {
	deleteMany, list := capture(client.DeleteObjects), capture(client.ListObjectsV2)
	create, complete := capture(client.CreateMultipartUpload), capture(client.CompleteMultipartUpload)
	copyPart, copyObject := capture(client.UploadPartCopy), capture(client.CopyObject)
	listUploads, listParts := capture(client.ListMultipartUploads), capture(client.ListParts)
	return operations{
		putObject: operation[sdk.PutObjectInput, stored]{
			by, capture(client.PutObject), func(in *sdk.PutObjectInput) bool { return given(in.Bucket, in.Key) },
			readStored[sdk.PutObjectInput],
		},
		getObject: operation[sdk.GetObjectInput, Object]{
			by, capture(client.GetObject), func(in *sdk.GetObjectInput) bool { return given(in.Bucket, in.Key) }, readGet,
		},
		headObject: operation[sdk.HeadObjectInput, Object]{
			by, capture(client.HeadObject), func(in *sdk.HeadObjectInput) bool { return given(in.Bucket, in.Key) }, readHead,
		},
		headBucket: operation[sdk.HeadBucketInput, sdk.HeadBucketOutput]{
			by, capture(client.HeadBucket), func(in *sdk.HeadBucketInput) bool { return given(in.Bucket) }, readHeadBucket,
		},
		deleteObject: operation[sdk.DeleteObjectInput, struct{}]{
			by, capture(client.DeleteObject), func(in *sdk.DeleteObjectInput) bool { return given(in.Bucket, in.Key) }, readDelete,
		},
		deleteObjects: operation[sdk.DeleteObjectsInput, sdk.DeleteObjectsOutput]{
			by, deleteMany, func(in *sdk.DeleteObjectsInput) bool { return given(in.Bucket) },
			document[sdk.DeleteObjectsInput, sdk.DeleteObjectsOutput](deleteMany, "DeleteResult", nil), // unnamed keys are asked for again
		},
		listObjects: operation[sdk.ListObjectsV2Input, sdk.ListObjectsV2Output]{
			by, list, func(in *sdk.ListObjectsV2Input) bool { return given(in.Bucket, in.Prefix) },
			document[sdk.ListObjectsV2Input](list, "ListBucketResult", checkList),
		},
		createUpload: operation[sdk.CreateMultipartUploadInput, sdk.CreateMultipartUploadOutput]{
			by, create, func(in *sdk.CreateMultipartUploadInput) bool { return given(in.Bucket, in.Key) },
			document[sdk.CreateMultipartUploadInput](create, "InitiateMultipartUploadResult", checkCreate),
		},
		uploadPart: operation[sdk.UploadPartInput, stored]{
			by, capture(client.UploadPart),
			func(in *sdk.UploadPartInput) bool { return given(in.Bucket, in.Key, in.UploadId) },
			readStored[sdk.UploadPartInput],
		},
		copyPart: operation[sdk.UploadPartCopyInput, sdk.UploadPartCopyOutput]{
			by, copyPart, func(in *sdk.UploadPartCopyInput) bool { return given(in.Bucket, in.Key, in.UploadId, in.CopySource) },
			unlessIgnored(document[sdk.UploadPartCopyInput](copyPart, "CopyPartResult", checkCopyPart)),
		},
		copyObject: operation[sdk.CopyObjectInput, sdk.CopyObjectOutput]{
			by, copyObject, func(in *sdk.CopyObjectInput) bool { return given(in.Bucket, in.Key, in.CopySource) },
			unlessIgnored(document[sdk.CopyObjectInput](copyObject, "CopyObjectResult", checkCopy)),
		},
		completeUpload: operation[sdk.CompleteMultipartUploadInput, sdk.CompleteMultipartUploadOutput]{
			by, complete, func(in *sdk.CompleteMultipartUploadInput) bool { return given(in.Bucket, in.Key, in.UploadId) },
			document[sdk.CompleteMultipartUploadInput](complete, "CompleteMultipartUploadResult", checkComplete),
		},
		abortUpload: operation[sdk.AbortMultipartUploadInput, struct{}]{
			by, capture(client.AbortMultipartUpload),
			func(in *sdk.AbortMultipartUploadInput) bool { return given(in.Bucket, in.Key, in.UploadId) }, readAbort,
		},
		listUploads: operation[sdk.ListMultipartUploadsInput, sdk.ListMultipartUploadsOutput]{
			by, listUploads, func(in *sdk.ListMultipartUploadsInput) bool { return given(in.Bucket) },
			document[sdk.ListMultipartUploadsInput, sdk.ListMultipartUploadsOutput](listUploads, "ListMultipartUploadsResult", nil),
		},
		listParts: operation[sdk.ListPartsInput, sdk.ListPartsOutput]{
			by, listParts, func(in *sdk.ListPartsInput) bool { return given(in.Bucket, in.Key, in.UploadId) },
			document[sdk.ListPartsInput](listParts, "ListPartsResult", checkParts),
		},
	}
}

// ---- objects

// Description is what is stored with an object. Values of metadata may be any text.
type Description struct {
	ContentType string // "" is application/octet-stream
	Metadata    map[string]string
}

// Put is an object that one request stores.
type Put struct {
	Key         string
	Description Description
	Body        [][]byte
	Sums        Sums // with the Hash of the body
	CreateOnly  bool // refused with object.Exists where an object is there
	Probe       bool // it is deleted at once: no storage class, which may bill it for months
}

// PutObject stores an object. It gives the ETag, and how often the request was sent: if it was sent more than once and
// failed, the object may be there.
func (b *Bucket) PutObject(ctx context.Context, put Put) (etag string, attempts int, err error) {
	in := &sdk.PutObjectInput{
		Bucket: &b.config.Bucket, Key: b.path(put.Key),
		ContentType: put.Description.contentType(), Metadata: put.Description.metadata(),
		ServerSideEncryption: types.ServerSideEncryption(b.config.Encryption), SSEKMSKeyId: optional(b.config.KMSKey),
		IfNoneMatch: ifNoneMatch(put.CreateOnly),
	}
	if !put.Probe {
		in.StorageClass = types.StorageClass(b.config.StorageClass)
	}
	put.Sums.onPut(in)
	about := &request{hash: put.Sums.Hash, body: put.Body, hasBody: true}
	out, err := b.client.putObject.do(ctx, about, in)
	if err != nil {
		return "", about.attempts, err
	}
	return out.etag, about.attempts, nil
}

// Object is what an answer tells of an object.
type Object struct {
	ETag      string
	Size      int64 // of the whole object in bytes, or -1 if not told
	Modified  time.Time
	Encoding  string // its Content-Encoding
	Type      string // its Content-Type
	Metadata  map[string]string
	CRC64NVME string // in base64; "" if not told, or not of the whole object
	Version   string // in a bucket that keeps versions, only from HEAD

	Body   io.ReadCloser // of a get
	Length int64         // of the body, or -1
	Ranged bool          // whether the body is only the part from Start to End, as the answer says
	Start  int64
	End    int64
}

// ToEnd is the Until of a Get that asks for all that follows by a range: the answer then tells the size of the whole.
const ToEnd = object.MaxSize

// Get asks for the bytes from From to before Until.
type Get struct {
	Key      string
	From     int64
	Until    int64  // -1: all that follows From; if From is 0, without a range
	IfMatch  string // an ETag; another object is refused with object.Exists
	Checksum bool   // whether the store shall tell it
}

// GetObject gives an object whose Body the caller closes.
func (b *Bucket) GetObject(ctx context.Context, get Get) (*Object, error) {
	in := &sdk.GetObjectInput{Bucket: &b.config.Bucket, Key: b.path(get.Key), IfMatch: optional(get.IfMatch)}
	if get.Checksum {
		in.ChecksumMode = types.ChecksumModeEnabled
	}
	switch {
	case get.Until == ToEnd, get.Until < 0 && get.From > 0:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-", get.From))
	case get.Until >= 0:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-%d", get.From, get.Until-1))
	}
	return b.client.getObject.do(ctx, &request{}, in)
}

// HeadObject describes an object; its Size is known. If a proxy has dropped the size, a range of one byte tells it.
func (b *Bucket) HeadObject(ctx context.Context, key string, checksum bool) (*Object, error) {
	in := &sdk.HeadObjectInput{Bucket: &b.config.Bucket, Key: b.path(key)}
	if checksum {
		in.ChecksumMode = types.ChecksumModeEnabled
	}
	out, err := b.client.headObject.do(ctx, &request{}, in)
	if err != nil || out.Size >= 0 {
		return out, err
	}
	// An answer of one byte without a range is the whole object, or a range that does not say so: then all is asked for.
	for _, until := range []int64{1, -1} {
		first, err := b.GetObject(ctx, Get{Key: key, Until: until})
		if RefusedWith(err, http.StatusRequestedRangeNotSatisfiable) {
			out.Size = 0 // there is no first byte
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		_ = first.Body.Close()
		switch {
		case !SameETag(first.ETag, out.ETag):
			return nil, Unlike("two ETags of one object")
		case first.Encoding != out.Encoding:
			return nil, Unlike("an encoding that an object has at times")
		case first.Ranged && first.Size >= 0:
			out.Size = first.Size
			return out, nil
		case !first.Ranged && first.Length >= 0 && (until < 0 || first.Length != 1):
			out.Size = first.Length
			return out, nil
		}
	}
	return nil, Unlike("an object without a size")
}

// DeleteObject deletes an object. A missing object is no error with most stores, and NotFound with some.
func (b *Bucket) DeleteObject(ctx context.Context, key string) error {
	in := &sdk.DeleteObjectInput{Bucket: &b.config.Bucket, Key: b.path(key)}
	_, err := b.client.deleteObject.do(ctx, &request{}, in)
	return err
}

// MaxDeleted is the most keys that DeleteObjects takes.
const MaxDeleted = 1000

// InXML tells whether a key can be named in a document: XML has no form for some characters.
func (b *Bucket) InXML(key string) bool { return !strings.ContainsAny(*b.path(key), noXML) }

// noXML are the characters of legal keys that XML has no form for.
const noXML = "\ufffe\uffff"

// DeleteObjects deletes objects by one request. told has the keys that the answer names, as deleted or not. failed is
// the first error that the answer has for an object. An object that the answer does not name may be there.
func (b *Bucket) DeleteObjects(ctx context.Context, keys []string) (told map[string]bool, failed, err error) {
	objects := make([]types.ObjectIdentifier, len(keys))
	for i, key := range keys {
		objects[i].Key = b.path(key)
	}
	in := &sdk.DeleteObjectsInput{Bucket: &b.config.Bucket, Delete: &types.Delete{Objects: objects}}
	out, err := b.client.deleteObjects.do(ctx, &request{md5: true}, in)
	if err != nil {
		return nil, nil, err
	}
	told = map[string]bool{}
	tell := func(path *string) string {
		key, ours := strings.CutPrefix(aws.ToString(path), b.config.Prefix)
		if ours {
			told[key] = true
		}
		return key
	}
	for _, one := range out.Deleted {
		tell(one.Key)
	}
	for _, one := range out.Errors {
		key, code := tell(one.Key), aws.ToString(one.Code)
		about := answer(code, http.StatusInternalServerError)
		if about.Code == object.NotFound || failed != nil {
			continue
		}
		if told[key] && slices.Contains(keys, key) {
			about.Key = key
		}
		about.Message = describe(code, aws.ToString(one.Message), http.StatusOK, nil)
		failed = about
	}
	return told, failed, nil
}

// Copy is an object that the store makes from another one.
type Copy struct {
	Key         string
	From        *Bucket
	Source      string // its key
	IfMatch     string // the source's ETag; another object is refused with object.Exists
	Description Description
	Algorithm   string        // of the checksum that the store is to compute, or ""
	Patience    time.Duration // how long it may work before it answers
}

// CopyObject lets the store copy an object. copied is false if it answered as to a put of no bytes: it knows no copies.
func (b *Bucket) CopyObject(ctx context.Context, c Copy) (copied bool, attempts int, err error) {
	in := &sdk.CopyObjectInput{
		Bucket: &b.config.Bucket, Key: b.path(c.Key), CopySource: c.From.source(c.Source), CopySourceIfMatch: optional(c.IfMatch),
		MetadataDirective: types.MetadataDirectiveReplace,
		ContentType:       c.Description.contentType(), Metadata: c.Description.metadata(),
		ServerSideEncryption: types.ServerSideEncryption(b.config.Encryption), SSEKMSKeyId: optional(b.config.KMSKey),
		StorageClass: types.StorageClass(b.config.StorageClass),
	}
	in.ChecksumAlgorithm, _ = declared(c.Algorithm)
	about := &request{patience: c.Patience}
	out, err := b.client.copyObject.do(ctx, about, in)
	return err == nil && out.CopyObjectResult != nil, about.attempts, err
}

// source names an object as the source of a copy.
func (b *Bucket) source(key string) *string {
	return aws.String(httpbinding.EscapePath(b.config.Bucket+"/"+*b.path(key), false))
}

// Page is one page of a listing of objects.
type Page struct {
	Objects   []object.Info // below the prefix asked for; keys that no checks know of are among them
	Token     string        // of the next page, or ""
	Truncated bool          // whether there is one
}

// ListObjects gives the page behind a token, or the page of the keys after after.
func (b *Bucket) ListObjects(ctx context.Context, prefix, after, token string) (*Page, error) {
	in := &sdk.ListObjectsV2Input{
		Bucket: &b.config.Bucket, Prefix: b.path(prefix), EncodingType: types.EncodingTypeUrl, ContinuationToken: optional(token),
	}
	if after != "" {
		in.StartAfter = b.path(after)
	}
	out, err := b.client.listObjects.do(ctx, &request{}, in)
	if err != nil {
		return nil, err
	}
	page := &Page{
		Objects: make([]object.Info, 0, len(out.Contents)),
		Token:   aws.ToString(out.NextContinuationToken), Truncated: aws.ToBool(out.IsTruncated),
	}
	for _, one := range out.Contents {
		path, ok := decoded(one.Key, out.EncodingType)
		if out.EncodingType != types.EncodingTypeUrl && strings.ContainsAny(*in.Prefix, noXML) {
			path, ok = repaired(*in.Prefix, path)
		}
		if !ok || path == "" {
			return nil, Unlike("an object without a key")
		}
		if key, ours := strings.CutPrefix(path, b.config.Prefix); ours && strings.HasPrefix(path, *in.Prefix) {
			page.Objects = append(page.Objects, object.Info{
				Key: key, Size: *one.Size, ETag: aws.ToString(one.ETag), Modified: dated(one.LastModified),
			})
		}
	}
	return page, nil
}

// decoded gives a key of an answer without its encoding.
func decoded(key *string, encoding types.EncodingType) (string, bool) {
	if encoding != types.EncodingTypeUrl {
		return aws.ToString(key), true
	}
	path, err := url.QueryUnescape(aws.ToString(key))
	return path, err == nil
}

// repaired puts the prefix into a path where the server could not write it: XML has no form for some characters.
func repaired(prefix, path string) (string, bool) {
	depth := strings.Count(prefix, "/")
	pieces := strings.SplitN(path, "/", depth+1)
	if len(pieces) <= depth {
		return "", false
	}
	return prefix + pieces[depth], true
}

// firstYear is before there was S3: an earlier time is not valid.
const firstYear = 2000

// dated is when something was modified, or the zero time if that is not told.
func dated(told *time.Time) time.Time {
	if told == nil || told.Year() < firstYear {
		return time.Time{}
	}
	return *told
}

// HeadBucket gives the region of the bucket, "" where the store does not tell.
func (b *Bucket) HeadBucket(ctx context.Context) (region string, err error) {
	out, err := b.client.headBucket.do(ctx, &request{}, &sdk.HeadBucketInput{Bucket: &b.config.Bucket})
	if err != nil {
		return "", err
	}
	return aws.ToString(out.BucketRegion), nil
}

// ---- multipart uploads

// Limits of S3 for the parts of an upload; the last part may be smaller than the least. Sizes are in bytes.
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
const (
	MaxParts    = 10_000
	MinPartSize = 5 << 20
	MaxPartSize = 5 << 30
)

// Upload names a multipart upload.
type Upload struct{ Key, ID string }

// Create is the beginning of an upload.
type Create struct {
	Key         string
	Description Description
	Algorithm   string // of the checksums of its parts, or ""
	Probe       bool   // as in Put
}

// CreateUpload begins an upload. After more than one attempt, or an error, there may be an upload that nobody knows of.
func (b *Bucket) CreateUpload(ctx context.Context, c Create) (_ Upload, attempts int, err error) {
	in := &sdk.CreateMultipartUploadInput{
		Bucket: &b.config.Bucket, Key: b.path(c.Key),
		ContentType: c.Description.contentType(), Metadata: c.Description.metadata(),
		ServerSideEncryption: types.ServerSideEncryption(b.config.Encryption), SSEKMSKeyId: optional(b.config.KMSKey),
	}
	if !c.Probe {
		in.StorageClass = types.StorageClass(b.config.StorageClass)
	}
	in.ChecksumAlgorithm, in.ChecksumType = declared(c.Algorithm)
	about := &request{}
	out, err := b.client.createUpload.do(ctx, about, in)
	if err != nil {
		return Upload{}, about.attempts, err
	}
	return Upload{c.Key, *out.UploadId}, about.attempts, nil
}

// Part is a part of an upload, as the request names it that completes the upload.
type Part struct {
	Number int32
	ETag   string
	Sums   Sums
}

// UploadPart sends a part, and notes its ETag.
func (b *Bucket) UploadPart(ctx context.Context, upload Upload, part *Part, body [][]byte) error {
	in := &sdk.UploadPartInput{
		Bucket: &b.config.Bucket, Key: b.path(upload.Key), UploadId: &upload.ID, PartNumber: &part.Number,
	}
	part.Sums.onPart(in)
	out, err := b.client.uploadPart.do(ctx, &request{hash: part.Sums.Hash, body: body, hasBody: true}, in)
	if err == nil {
		part.ETag = out.etag
	}
	return err
}

// CopyPart is what the store copies into an upload.
type CopyPart struct {
	From     *Bucket
	Source   string // its key
	IfMatch  string // the source's ETag; another object is refused with object.Exists
	Start    int64
	Length   int64         // -1 for all of the source
	Patience time.Duration // how long the store may work before it answers
}

// CopyPart lets the store copy a part. It notes the ETag, and what the store tells of the checksum of part.Sums. copied
// is false if the store answered as to a part of no bytes: it knows no copies.
func (b *Bucket) CopyPart(ctx context.Context, upload Upload, part *Part, c CopyPart) (copied bool, err error) {
	in := &sdk.UploadPartCopyInput{
		Bucket: &b.config.Bucket, Key: b.path(upload.Key), UploadId: &upload.ID, PartNumber: &part.Number,
		CopySource: c.From.source(c.Source), CopySourceIfMatch: optional(c.IfMatch),
	}
	if c.Length >= 0 {
		in.CopySourceRange = aws.String(fmt.Sprintf("bytes=%d-%d", c.Start, c.Start+c.Length-1))
	}
	out, err := b.client.copyPart.do(ctx, &request{patience: c.Patience}, in)
	if err != nil || out.CopyPartResult == nil {
		return false, err
	}
	part.ETag, part.Sums = *out.CopyPartResult.ETag, copiedSums(part.Sums.Algorithm, out.CopyPartResult)
	return true, nil
}

// Complete is the end of an upload.
type Complete struct {
	Upload     Upload
	Parts      []Part
	Sums       Sums // of the whole object
	CreateOnly bool // refused with object.Exists where an object is there
	Patience   time.Duration
}

// CompleteUpload makes an object of the parts. It gives the CRC-64/NVME that the store has of it, in base64, or "", and
// how often the request was sent. After an error that is no refusal, the object may be there.
func (b *Bucket) CompleteUpload(ctx context.Context, c Complete) (crc64nvme string, attempts int, err error) {
	parts := make([]types.CompletedPart, len(c.Parts))
	for i := range c.Parts {
		parts[i] = types.CompletedPart{PartNumber: &c.Parts[i].Number, ETag: &c.Parts[i].ETag}
		c.Parts[i].Sums.onCompleted(&parts[i])
	}
	in := &sdk.CompleteMultipartUploadInput{
		Bucket: &b.config.Bucket, Key: b.path(c.Upload.Key), UploadId: &c.Upload.ID,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: parts}, IfNoneMatch: ifNoneMatch(c.CreateOnly),
	}
	c.Sums.onComplete(in)
	about := &request{patience: c.Patience}
	out, err := b.client.completeUpload.do(ctx, about, in)
	if err != nil {
		return "", about.attempts, err
	}
	return aws.ToString(out.ChecksumCRC64NVME), about.attempts, nil
}

// AbortUpload ends an upload without an object. An upload that is not there is a refusal with 404.
func (b *Bucket) AbortUpload(ctx context.Context, upload Upload) error {
	in := &sdk.AbortMultipartUploadInput{Bucket: &b.config.Bucket, Key: b.path(upload.Key), UploadId: &upload.ID}
	_, err := b.client.abortUpload.do(ctx, &request{}, in)
	return err
}

// Uploads is one page of a listing of unfinished uploads.
type Uploads struct {
	Found     []object.Unfinished // with keys of the bucket, whatever their prefix
	Truncated bool                // whether there is another page
}

// ListUploads gives the page of the uploads with keys after a marker. prefix and marker are those of the bucket.
func (b *Bucket) ListUploads(ctx context.Context, prefix, marker string) (*Uploads, error) {
	in := &sdk.ListMultipartUploadsInput{
		Bucket: &b.config.Bucket, Prefix: optional(prefix), KeyMarker: optional(marker), EncodingType: types.EncodingTypeUrl,
	}
	page, err := b.client.listUploads.do(ctx, &request{}, in)
	if err != nil {
		return nil, err
	}
	found := make([]object.Unfinished, 0, len(page.Uploads))
	for _, one := range page.Uploads {
		if path, ok := decoded(one.Key, page.EncodingType); ok && given(one.UploadId) {
			found = append(found, object.Unfinished{Key: path, ID: *one.UploadId, Modified: dated(one.Initiated)})
		}
	}
	return &Uploads{found, aws.ToBool(page.IsTruncated)}, nil
}

// MaxFruitless bounds the pages in a row that name nothing new in a listing: some stores have empty pages.
const MaxFruitless = 100

// ListedPart is a part that the store has of an upload.
type ListedPart struct {
	Number   int32
	Size     int64
	Modified time.Time // zero if not told
	Again    bool      // the listing has named it before
}

// ErrEndless is the error of a listing of parts that does not go on.
var ErrEndless = Unlike("a listing of parts that does not go on")

// Parts gives the parts of an upload, page by page, until there is an error. An upload that is not there is a refusal with
// 404; a listing that does not go on is ErrEndless.
func (b *Bucket) Parts(ctx context.Context, upload Upload) iter.Seq2[ListedPart, error] {
	return func(yield func(ListedPart, error) bool) {
		in := &sdk.ListPartsInput{Bucket: &b.config.Bucket, Key: b.path(upload.Key), UploadId: &upload.ID}
		seen := map[int32]bool{}
		for last, fruitless := 0, 0; ; {
			page, err := b.client.listParts.do(ctx, &request{}, in)
			if err != nil {
				yield(ListedPart{}, err)
				return
			}
			fruitless++
			for _, one := range page.Parts {
				part := ListedPart{*one.PartNumber, aws.ToInt64(one.Size), dated(one.LastModified), seen[*one.PartNumber]}
				if !part.Again {
					seen[part.Number], fruitless = true, 0
				}
				if !yield(part, nil) {
					return
				}
			}
			if !aws.ToBool(page.IsTruncated) {
				return
			}
			next, err := strconv.Atoi(aws.ToString(page.NextPartNumberMarker))
			if err != nil || next <= last || next > MaxParts || fruitless > MaxFruitless {
				yield(ListedPart{}, ErrEndless)
				return
			}
			last, in.PartNumberMarker = next, page.NextPartNumberMarker
		}
	}
}

// ---- inputs

func ifNoneMatch(createOnly bool) *string {
	if !createOnly {
		return nil
	}
	return aws.String("*")
}

func optional(value string) *string {
	if value == "" {
		return nil
	}
	return &value
}

// contentType is the content type of an object. If nobody has told it, it is the type that is true of any object.
func (d Description) contentType() *string {
	return aws.String(cmp.Or(d.ContentType, "application/octet-stream"))
}

func (d Description) metadata() map[string]string {
	sent := make(map[string]string, len(d.Metadata))
	for name, value := range d.Metadata {
		sent[name] = headerValue(value)
	}
	return sent
}

// Describes tells whether an object has this description. Values of metadata may be as they are sent, or as they are.
func (d Description) Describes(found *Object) bool {
	for name, value := range d.Metadata {
		if is := found.Metadata[strings.ToLower(name)]; is != headerValue(value) && is != value {
			return false
		}
	}
	return found.Type == *d.contentType()
}

// wordBytes is how many bytes of text fit in an encoded word of RFC 2047, which has at most 75 characters.
const wordBytes = 45

// headerValue is a text as a header can have it. Text that is not printable ASCII, has blanks at its ends or looks
// encoded goes in encoded words. S3 itself answers in this way if a text is not ASCII.
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

// HeaderText is the text that a header holds, perhaps in encoded words. What cannot be decoded is given as it is.
func HeaderText(value string) string {
	text, err := new(mime.WordDecoder).DecodeHeader(value)
	if err != nil {
		return value
	}
	return text
}
