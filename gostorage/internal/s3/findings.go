package s3

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/encoding/httpbinding"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// What a probe finds, in the order in which it looks.

const (
	greeting = "probe of django-gostorage"
	altered  = "Probe of django-gostorage"
)

func failed(err error) object.Finding { return object.No(err.Error(), "") }

// passing tells errors that say nothing of what the server can do.
func passing(err error) bool {
	code := object.CodeOf(err)
	return code == object.Unavailable || code == object.Timeout || code == object.Cancelled
}

// credentials tells where they come from. Of the access key it shows the end, of the rest nothing.
func (p *probe) credentials() object.Finding {
	found, err := p.store.client.credentials.Retrieve(p.ctx)
	if err != nil {
		return object.No(strings.TrimSuffix(classify(err).Error(), ": "+giveCredentials), giveCredentials)
	}
	source, _, _ := strings.Cut(found.Source, ":") // what follows may be a path
	detail := fmt.Sprintf("access key %s, from %s", masked(found.AccessKeyID), source)
	if found.CanExpire {
		detail += fmt.Sprintf(", until %s", found.Expires.UTC().Format(time.DateTime+"Z"))
	}
	return object.Yes(detail)
}

func masked(key string) string {
	if len(key) < 8 {
		return "****"
	}
	return "****" + key[len(key)-4:]
}

func (p *probe) bucket() object.Finding {
	endpoint, region := p.store.client.endpoint, p.store.client.region
	style := "virtual"
	if p.store.config.pathStyle() {
		style = "path"
	}
	detail := fmt.Sprintf("%s://%s, region %s, %s style", endpoint.Scheme, endpoint.Host, region, style)
	out, err := p.client.HeadBucket(p.ctx, &sdk.HeadBucketInput{Bucket: p.store.bucket()}, once)
	err = classify(err)
	known, _ := errors.AsType[*object.Error](err)
	switch {
	case err == nil:
		if real := aws.ToString(out.BucketRegion); real != "" && real != region {
			return object.No(fmt.Sprintf("%s, but the bucket is in %s", detail, real),
				fmt.Sprintf("set region_name (AWS_S3_REGION_NAME) to %q", real))
		}
		return object.Yes(detail)
	case known != nil && known.Status == http.StatusForbidden:
		return object.Unknown(detail + ": the server does not let these credentials look at the bucket")
	case known != nil && known.Status == http.StatusNotFound:
		return object.No(detail+": there is no such bucket", "create it, or check bucket_name, access_key, endpoint_url and addressing_style")
	case known != nil && known.Status == http.StatusBadRequest:
		return object.No(detail+": "+err.Error(), "check the scheme of endpoint_url (http or https) and its port")
	default:
		if p.answers.ours.IsZero() {
			p.silent = err
		}
		return object.No(detail+": "+err.Error(), "")
	}
}

const (
	muchSkew = time.Minute
	mostSkew = 15 * time.Minute // S3 refuses what was signed longer ago
)

// skew is how far the server's clock was ahead at the last answer, to the second: its header cuts off the rest.
func (p *probe) skew() time.Duration {
	if p.answers.theirs.IsZero() {
		return 0
	}
	return p.answers.theirs.Add(time.Second / 2).Sub(p.answers.ours).Round(time.Second)
}

// clock compares the server's clock with ours. Refusals tell the time too.
func (p *probe) clock() object.Finding {
	if p.answers.theirs.IsZero() {
		return object.Unknown("the server does not tell its time")
	}
	skew := p.skew()
	detail := "the clocks agree within a second or two"
	if skew.Abs() > 2*time.Second {
		where := "ahead"
		if skew < 0 {
			where = "behind"
		}
		detail = fmt.Sprintf("the server's clock is %.0f s %s", skew.Abs().Seconds(), where)
	}
	found := object.Yes(detail)
	if skew.Abs() > muchSkew {
		found = object.No(detail, "set the clock of this machine by NTP: S3 refuses requests when they are 900 s apart")
	}
	return found.WithValue(skew.Seconds())
}

func (p *probe) reach() object.Finding {
	if p.silent != nil {
		return failed(p.silent)
	}
	out, err := p.put(p.small, greeting, greeting, nil)
	if err != nil {
		return failed(err)
	}
	p.tag = *out.ETag
	return object.Yes("an object can be written, and is acknowledged by its ETag")
}

const otherStore = "nothing here works without it: use another store, or look for a proxy that changes answers"

// description compares what is told of an object with what it is.
func (p *probe) description() object.Finding {
	found, _, err := p.store.look(p.ctx, p.small)
	switch {
	case err != nil:
		return failed(err)
	case found.Size != int64(len(greeting)):
		return object.No(fmt.Sprintf("an object of %d bytes is said to have %d", len(greeting), found.Size), otherStore)
	case !sameTag(found.ETag, p.tag):
		return object.No("an object has other ETags from one request to the next", otherStore)
	}
	return object.Yes("an object has the size and the ETag that it was stored with")
}

func (p *probe) latency() object.Finding {
	const requests = 9
	times := make([]float64, requests)
	for i := range times {
		started := time.Now()
		if _, _, err := p.store.look(p.ctx, p.small); err != nil {
			return failed(err)
		}
		times[i] = time.Since(started).Seconds()
	}
	slices.Sort(times)
	median := times[requests/2]
	detail := fmt.Sprintf("%.1f ms, the median of %d small requests", median*1000, requests)
	return object.Yes(detail).WithValue(median)
}

func (p *probe) ranges() object.Finding {
	out, data, err := p.get(p.small, func(in *sdk.GetObjectInput) { in.Range = aws.String("bytes=3-5") })
	if err != nil {
		return failed(err)
	}
	if part, _ := extentOf(out.ContentRange); part != (extent{3, 6, int64(len(greeting))}) || string(data) != greeting[3:6] {
		return object.No("the server does not give the range that it is asked for",
			"streams cannot be sought or resumed with this store: use another, or look for a proxy that drops the header Range")
	}
	return object.Yes("a part of an object can be read")
}

const keepKeys = "do not rely on overwrite=False with this store: give every object a key that never comes twice"

// unconditional judges a write that the server had to refuse because an object is there.
func unconditional(err error) object.Finding {
	code := object.CodeOf(err)
	switch {
	case err == nil:
		return object.No("the server ignores If-None-Match and replaces the object that is there", keepKeys)
	case code == object.Exists || code == object.Conflict:
		return object.Yes("an object that is there is not replaced")
	case passing(err):
		return object.Unknown(err.Error())
	default:
		return object.No("the server has no conditional writes: "+err.Error(), keepKeys)
	}
}

func (p *probe) conditionalPut() object.Finding {
	_, err := p.put(p.small, altered, altered, func(in *sdk.PutObjectInput) { in.IfNoneMatch = aws.String("*") })
	return unconditional(err)
}

func (p *probe) conditionalComplete() object.Finding {
	id, err := p.create(p.small, "")
	if err != nil {
		return failed(err)
	}
	part, err := p.part(id, greeting, greeting, checksumSigned)
	if err != nil {
		return failed(err)
	}
	found := unconditional(p.complete(id, part, func(in *sdk.CompleteMultipartUploadInput) {
		in.IfNoneMatch = aws.String("*")
	}))
	_ = p.forget(id)
	return found
}

const unverified = "damage on the way would be stored unnoticed: use https, and another store for what matters"

// unnoticed judges a request that the server had to refuse because its body is not what was signed.
func unnoticed(err error, by string) object.Finding {
	switch {
	case err == nil:
		return object.No("the server stores bytes that were altered on the way, though "+by+" says so", unverified)
	case passing(err):
		return object.Unknown(err.Error())
	default:
		return object.Yes("bytes altered on the way are refused, by " + by)
	}
}

const nothingSent = "not tried: the option checksum is 'off'"

func (p *probe) alteredPut() object.Finding {
	if p.store.config.Checksum == checksumOff {
		return object.Unknown(nothingSent)
	}
	_, err := p.put(p.folder+"altered", altered, greeting, nil)
	return unnoticed(err, "the SHA-256 in the signature")
}

// alteredPart sends a part as uploads do, with the checksum that they would use.
func (p *probe) alteredPart() object.Finding {
	algorithm, by := p.store.checksum(), "its "+strings.ToUpper(p.store.checksum())
	if algorithm == checksumOff {
		return object.Unknown(nothingSent)
	}
	id, err := p.create(p.folder+"altered", algorithm)
	if object.CodeOf(err) == object.Refused && p.store.config.Checksum == checksumAuto {
		algorithm = checksumSigned
		id, err = p.create(p.folder+"altered", algorithm)
	}
	if algorithm == checksumSigned {
		by = "the SHA-256 in the signature (the server takes no " + strings.ToUpper(checksumCRC64) + ")"
	}
	if err != nil {
		return failed(err)
	}
	defer func() { _ = p.forget(id) }()
	if _, err := p.part(id, greeting, greeting, algorithm); err != nil {
		return failed(err)
	}
	_, err = p.part(id, altered, greeting, algorithm)
	return unnoticed(err, by)
}

// wholeChecksum looks whether the server keeps a checksum of all of an upload, which readers verify.
func (p *probe) wholeChecksum() object.Finding {
	const advice = "a large object whose SHA-256 was not known before it was stored is not verified when it is read:" +
		" pass sha256= where you know it"
	algorithm := p.store.checksum()
	if algorithm != checksumCRC64 {
		return object.No(fmt.Sprintf("the option checksum is %q: readers verify crc64nvme only", algorithm), advice)
	}
	key := p.folder + "whole"
	id, err := p.create(key, algorithm)
	if object.CodeOf(err) == object.Refused {
		return object.No("the server takes no "+strings.ToUpper(algorithm), advice)
	}
	if err != nil {
		return failed(err)
	}
	defer func() { _ = p.forget(id) }()
	part, err := p.part(id, greeting, greeting, algorithm)
	if err != nil {
		return failed(err)
	}
	whole := sumsOf(greeting, algorithm).checksum // of its one part, and so of all
	err = p.complete(id, part, func(in *sdk.CompleteMultipartUploadInput) {
		in.ChecksumCRC64NVME, in.ChecksumType = whole, types.ChecksumTypeFullObject
	})
	if err != nil {
		return failed(err)
	}
	out, _, err := p.get(key, func(in *sdk.GetObjectInput) { in.ChecksumMode = types.ChecksumModeEnabled })
	if err != nil {
		return failed(err)
	}
	if out.ChecksumType != types.ChecksumTypeFullObject || aws.ToString(out.ChecksumCRC64NVME) != *whole {
		return object.No("the server does not keep the "+strings.ToUpper(algorithm)+" of an object that came in parts", advice)
	}
	return object.Yes("the server keeps the " + strings.ToUpper(algorithm) + " of an object that came in parts")
}

// copyPart lets the server copy an object into an upload, and not do so when it is another one by now.
func (p *probe) copyPart() object.Finding {
	const advice = "assemble moves the bytes of the parts through this machine instead"
	s, key, source := p.store, p.folder+"copy", p.folder+"source"
	there, err := p.put(source, greeting, greeting, nil)
	if err != nil {
		return failed(err)
	}
	id, err := p.create(key, "")
	if err != nil {
		return failed(err)
	}
	defer func() { _ = p.forget(id) }()
	copied := func(etag string) (*sdk.UploadPartCopyOutput, error) {
		out, err := p.client.UploadPartCopy(p.ctx, &sdk.UploadPartCopyInput{
			Bucket: s.bucket(), Key: s.path(key), UploadId: &id, PartNumber: aws.Int32(1),
			CopySource:        aws.String(httpbinding.EscapePath(*s.bucket()+"/"+*s.path(source), false)),
			CopySourceIfMatch: &etag,
		}, once)
		return out, classify(err)
	}
	out, err := copied(aws.ToString(there.ETag))
	if err != nil {
		return object.No("the server does not copy parts: "+err.Error(), advice)
	}
	if out.CopyPartResult == nil {
		return object.No("the server does not copy parts: its answer has no result", advice)
	}
	part := types.CompletedPart{PartNumber: aws.Int32(1), ETag: out.CopyPartResult.ETag}
	switch _, err := copied(`"00000000000000000000000000000000"`); {
	case err == nil:
		return object.No("the server copies a part also when it has changed since", advice)
	case passing(err):
		return object.Unknown(err.Error())
	}
	if err := p.complete(id, part, nil); err != nil {
		return object.No("the server does not join copied parts: "+err.Error(), advice)
	}
	if _, data, err := p.get(key, nil); err != nil || !bytes.Equal(data, []byte(greeting)) {
		return object.No("a copied part has other bytes than its source", advice)
	}
	return object.Yes("the server copies parts by itself, and only as long as they are the same")
}

func (p *probe) abort() object.Finding {
	key := p.folder + "abort"
	id, err := p.create(key, "")
	if err != nil {
		return failed(err)
	}
	if _, err := p.part(id, greeting, greeting, checksumSigned); err != nil {
		return failed(err)
	}
	below, _, err := p.uploadsBelow(*p.store.path(p.folder))
	p.listed = err == nil && slices.ContainsFunc(below, func(u types.MultipartUpload) bool { return aws.ToString(u.UploadId) == id })
	if err := p.forget(id); err != nil {
		return failed(err)
	}
	in := &sdk.ListPartsInput{Bucket: p.store.bucket(), Key: p.store.path(key), UploadId: &id}
	left, err := p.client.ListParts(p.ctx, in, once)
	err = classify(err)
	switch code := object.CodeOf(err); {
	case code == object.Conflict || code == object.NotFound || err == nil && len(left.Parts) == 0:
		return object.Yes("an aborted upload leaves nothing")
	case err == nil:
		return object.No("parts of an aborted upload are still there", "set a lifecycle rule for unfinished multipart uploads")
	default:
		return object.Unknown(err.Error())
	}
}

func (p *probe) deleteBatch() object.Finding {
	s := p.store
	other := p.folder + "other"
	if _, err := p.put(other, greeting, greeting, nil); err != nil {
		return failed(err)
	}
	in := &sdk.DeleteObjectsInput{Bucket: s.bucket(), Delete: &types.Delete{
		Objects: []types.ObjectIdentifier{{Key: s.path(other)}, {Key: s.path(p.folder + "missing")}}, Quiet: aws.Bool(true),
	}}
	out, err := p.client.DeleteObjects(p.ctx, in, withMD5)
	err = classify(err)
	if err == nil && len(out.Errors) > 0 && aws.ToString(out.Errors[0].Code) != "NoSuchKey" {
		err = object.Errorf(object.Refused, "%s", aws.ToString(out.Errors[0].Code))
	}
	if err != nil {
		return object.No("the server does not delete many objects by one request: "+err.Error(),
			"parts are deleted one by one, which takes longer")
	}
	if _, _, err := s.look(p.ctx, other); object.CodeOf(err) != object.NotFound {
		return object.No("an object is still there after it was deleted", "")
	}
	delete(p.keys, other)
	return object.Yes("many objects can be deleted by one request")
}

// versions tells of a bucket that keeps what was deleted.
func (p *probe) versions() object.Finding {
	out, err := p.client.HeadObject(p.ctx, &sdk.HeadObjectInput{Bucket: p.store.bucket(), Key: p.store.path(p.small)})
	if err != nil {
		return failed(classify(err))
	}
	if version := aws.ToString(out.VersionId); version != "" && version != "null" {
		return object.No("the bucket keeps every version of an object: what is deleted stays, and costs",
			"set a lifecycle rule that expires noncurrent versions below the prefixes")
	}
	return object.Yes("what is deleted is gone")
}

// longUnfinished is when an upload is more likely forgotten than under way.
const longUnfinished = 24 * time.Hour

func (p *probe) unfinished() object.Finding {
	below, all, err := p.uploadsBelow(p.store.config.Prefix)
	if err != nil {
		return object.Unknown("the server does not tell: " + err.Error())
	}
	if !p.listed {
		return object.Unknown("the server does not list uploads by their folder")
	}
	old := 0
	for _, upload := range below {
		if time.Since(aws.ToTime(upload.Initiated)) > longUnfinished {
			old++
		}
	}
	detail := fmt.Sprintf("%d multipart uploads under way", len(below))
	if !all {
		detail = "at least " + detail
	}
	found := object.Yes(detail)
	if old > 0 {
		found = object.No(fmt.Sprintf("%s, %d of them for more than a day", detail, old),
			"parts of unfinished uploads cost as objects do: run manage.py storage_sweep now and then, or set a lifecycle rule")
	}
	return found.WithValue(float64(old))
}
