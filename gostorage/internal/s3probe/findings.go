package s3probe

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/awsconfig"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/s3api"
)

// What a probe finds, in the order in which it looks.

const (
	greeting = "probe of django-gostorage"
	altered  = "Probe of django-gostorage"
)

// The values of Options.Checksum besides the algorithms.
const (
	off    = "off"
	signed = "signed"
)

func failed(err error) object.Finding { return object.No(err.Error(), "") }

// passing tells whether an error says nothing about what the server can do.
func passing(err error) bool {
	code := object.CodeOf(err)
	return code == object.Unavailable || code == object.Timeout || code == object.Cancelled
}

// credentials tells where the credentials come from. It shows the end of the access key, and nothing of the rest.
func (p *probe) credentials() object.Finding {
	found, err := p.bucket.Credentials(p.ctx)
	if err != nil {
		return object.No(strings.TrimSuffix(err.Error(), ": "+awsconfig.GiveCredentials), awsconfig.GiveCredentials)
	}
	detail := fmt.Sprintf("access key %s, from %s", masked(found.AccessKey), found.Source)
	if !found.Expires.IsZero() {
		detail += fmt.Sprintf(", until %s", found.Expires.Format(time.DateTime+"Z"))
	}
	return object.Yes(detail)
}

func masked(key string) string {
	if len(key) < 8 {
		return "****"
	}
	return "****" + key[len(key)-4:]
}

func (p *probe) where() object.Finding {
	detail := p.bucket.Where()
	region, err := p.bucket.HeadBucket(p.once())
	known, _ := errors.AsType[*object.Error](err)
	switch {
	case err == nil:
		if region != "" && region != p.bucket.Region() {
			return object.No(fmt.Sprintf("%s, but the bucket is in %s", detail, region),
				fmt.Sprintf("set region_name (AWS_S3_REGION_NAME) to %q", region))
		}
		return object.Yes(detail)
	case known != nil && known.Status == http.StatusForbidden:
		return object.Unknown(detail + ": the server does not let these credentials look at the bucket")
	case known != nil && known.Status == http.StatusNotFound:
		return object.No(detail+": there is no such bucket", "create it, or check bucket_name, access_key, endpoint_url and addressing_style")
	case known != nil && known.Status == http.StatusBadRequest:
		return object.No(detail+": "+err.Error(), "check the scheme of endpoint_url (http or https) and its port")
	default:
		if known == nil || known.Status == 0 {
			p.silent = err
		}
		return object.No(detail+": "+err.Error(), "")
	}
}

const (
	muchSkew = time.Minute
	mostSkew = 15 * time.Minute // S3 refuses requests that were signed longer ago
)

// skew is how far the server's clock was ahead at the last answer, to the second: its header cuts off the rest.
func (p *probe) skew() time.Duration {
	if p.bucket.Ahead() == 0 {
		return 0
	}
	return (p.bucket.Ahead() + time.Second/2).Round(time.Second)
}

// clock compares the server's clock with ours. Refusals tell the time too.
func (p *probe) clock() object.Finding {
	if p.bucket.Ahead() == 0 {
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
	tag, err := p.put(p.small, greeting, greeting, false)
	if err != nil {
		return failed(err)
	}
	p.tag = tag
	return object.Yes("an object can be written, and is acknowledged by its ETag")
}

const otherStore = "nothing here works without it: use another store, or look for a proxy that changes answers"

// description compares what the server tells of an object with what the object is.
func (p *probe) description() object.Finding {
	found, err := p.bucket.HeadObject(p.ctx, p.small, false)
	switch {
	case err != nil:
		return failed(err)
	case found.Size != int64(len(greeting)):
		return object.No(fmt.Sprintf("an object of %d bytes is said to have %d", len(greeting), found.Size), otherStore)
	case !s3api.SameETag(found.ETag, p.tag):
		return object.No("an object has other ETags from one request to the next", otherStore)
	}
	return object.Yes("an object has the size and the ETag that it was stored with")
}

func (p *probe) latency() object.Finding {
	const requests = 9
	times := make([]float64, requests)
	for i := range times {
		started := time.Now()
		if _, err := p.bucket.HeadObject(p.ctx, p.small, false); err != nil {
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
	out, data, err := p.get(s3api.Get{Key: p.small, From: 3, Until: 6})
	if err != nil {
		return failed(err)
	}
	if !out.Ranged || out.Start != 3 || out.End != 6 || out.Size != int64(len(greeting)) || string(data) != greeting[3:6] {
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
	_, err := p.put(p.small, altered, altered, true)
	return unconditional(err)
}

func (p *probe) conditionalComplete() object.Finding {
	upload, err := p.create(p.small, "")
	if err != nil {
		return failed(err)
	}
	part, err := p.part(upload, greeting, greeting, signed)
	if err != nil {
		return failed(err)
	}
	found := unconditional(p.complete(upload, part, s3api.Sums{}, true))
	_ = p.forget(upload.ID)
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
	if p.options.Checksum == off {
		return object.Unknown(nothingSent)
	}
	_, err := p.put(p.folder+"altered", altered, greeting, false)
	return unnoticed(err, "the SHA-256 in the signature")
}

// alteredPart sends a part as uploads do, with the checksum that they would use.
func (p *probe) alteredPart() object.Finding {
	algorithm, by := p.options.Checksum, "its "+strings.ToUpper(p.options.Checksum)
	if algorithm == off {
		return object.Unknown(nothingSent)
	}
	upload, err := p.create(p.folder+"altered", algorithm)
	if object.CodeOf(err) == object.Refused && p.options.Auto {
		algorithm = signed
		upload, err = p.create(p.folder+"altered", algorithm)
	}
	if algorithm == signed {
		by = "the SHA-256 in the signature (the server takes no " + strings.ToUpper(s3api.CRC64NVME) + ")"
	}
	if err != nil {
		return failed(err)
	}
	defer func() { _ = p.forget(upload.ID) }()
	if _, err := p.part(upload, greeting, greeting, algorithm); err != nil {
		return failed(err)
	}
	_, err = p.part(upload, altered, greeting, algorithm)
	return unnoticed(err, by)
}

// wholeChecksum looks whether the server keeps a checksum of a whole upload, which readers verify.
func (p *probe) wholeChecksum() object.Finding {
	const advice = "a large object whose SHA-256 was not known before it was stored is not verified when it is read:" +
		" pass sha256= where you know it"
	algorithm := p.options.Checksum
	if algorithm != s3api.CRC64NVME {
		return object.No(fmt.Sprintf("the option checksum is %q: readers verify crc64nvme only", algorithm), advice)
	}
	key := p.folder + "whole"
	upload, err := p.create(key, algorithm)
	if object.CodeOf(err) == object.Refused {
		return object.No("the server takes no "+strings.ToUpper(algorithm), advice)
	}
	if err != nil {
		return failed(err)
	}
	defer func() { _ = p.forget(upload.ID) }()
	part, err := p.part(upload, greeting, greeting, algorithm)
	if err != nil {
		return failed(err)
	}
	whole := sumsOf(greeting, algorithm) // of its only part, and so of the whole
	if err := p.complete(upload, part, whole, false); err != nil {
		return failed(err)
	}
	out, _, err := p.get(s3api.Get{Key: key, Until: -1, Checksum: true})
	if err != nil {
		return failed(err)
	}
	if out.CRC64NVME != whole.Checksum {
		return object.No("the server does not keep the "+strings.ToUpper(algorithm)+" of an object that came in parts", advice)
	}
	return object.Yes("the server keeps the " + strings.ToUpper(algorithm) + " of an object that came in parts")
}

// copyPart lets the server copy an object into an upload, which it must refuse if the object is another one by now.
func (p *probe) copyPart() object.Finding {
	const advice = "assemble moves the bytes of the parts through this machine instead"
	key, source := p.folder+"copy", p.folder+"source"
	tag, err := p.put(source, greeting, greeting, false)
	if err != nil {
		return failed(err)
	}
	upload, err := p.create(key, "")
	if err != nil {
		return failed(err)
	}
	defer func() { _ = p.forget(upload.ID) }()
	part := s3api.Part{Number: 1}
	from := s3api.CopyPart{From: p.bucket, Source: source, IfMatch: tag, Length: -1}
	copied, err := p.bucket.CopyPart(p.once(), upload, &part, from)
	if err != nil {
		return object.No("the server does not copy parts: "+err.Error(), advice)
	}
	if !copied {
		return object.No("the server does not copy parts: its answer has no result", advice)
	}
	from.IfMatch = `"00000000000000000000000000000000"`
	switch _, err := p.bucket.CopyPart(p.once(), upload, &s3api.Part{Number: 1}, from); {
	case err == nil:
		return object.No("the server copies a part also when it has changed since", advice)
	case passing(err):
		return object.Unknown(err.Error())
	}
	if err := p.complete(upload, part, s3api.Sums{}, false); err != nil {
		return object.No("the server does not join copied parts: "+err.Error(), advice)
	}
	if _, data, err := p.get(s3api.Get{Key: key, Until: -1}); err != nil || string(data) != greeting {
		return object.No("a copied part has other bytes than its source", advice)
	}
	return object.Yes("the server copies parts by itself, and only as long as they are the same")
}

func (p *probe) abort() object.Finding {
	key := p.folder + "abort"
	upload, err := p.create(key, "")
	if err != nil {
		return failed(err)
	}
	if _, err := p.part(upload, greeting, greeting, signed); err != nil {
		return failed(err)
	}
	if below, _, err := p.uploadsBelow(p.folder); err == nil {
		p.listed = slices.ContainsFunc(below, func(one object.Unfinished) bool { return one.ID == upload.ID })
	}
	if err := p.forget(upload.ID); err != nil {
		return failed(err)
	}
	left := false
	for _, err = range p.bucket.Parts(p.once(), upload) { // with neither a part nor an error, err stays nil
		left = err == nil
		break
	}
	switch code := object.CodeOf(err); {
	case code == object.Conflict || code == object.NotFound || err == nil && !left:
		return object.Yes("an aborted upload leaves nothing")
	case err == nil:
		return object.No("parts of an aborted upload are still there", "set a lifecycle rule for unfinished multipart uploads")
	default:
		return object.Unknown(err.Error())
	}
}

func (p *probe) deleteBatch() object.Finding {
	other := p.folder + "other"
	if _, err := p.put(other, greeting, greeting, false); err != nil {
		return failed(err)
	}
	_, refused, err := p.bucket.DeleteObjects(p.ctx, []string{other, p.folder + "missing"})
	if err = cmp.Or(err, refused); err != nil {
		return object.No("the server does not delete many objects by one request: "+err.Error(),
			"parts are deleted one by one, which takes longer")
	}
	if _, err := p.bucket.HeadObject(p.ctx, other, false); object.CodeOf(err) != object.NotFound {
		return object.No("an object is still there after it was deleted", "")
	}
	delete(p.keys, other)
	return object.Yes("many objects can be deleted by one request")
}

// versions looks whether the bucket keeps what was deleted.
func (p *probe) versions() object.Finding {
	out, err := p.bucket.HeadObject(p.ctx, p.small, false)
	if err != nil {
		return failed(err)
	}
	if out.Version != "" && out.Version != "null" {
		return object.No("the bucket keeps every version of an object: what is deleted stays, and costs",
			"set a lifecycle rule that expires noncurrent versions below the prefixes")
	}
	return object.Yes("what is deleted is gone")
}

// longUnfinished is when an upload is more likely forgotten than under way.
const longUnfinished = 24 * time.Hour

func (p *probe) unfinished() object.Finding {
	below, all, err := p.uploadsBelow("")
	if err != nil {
		return object.Unknown("the server does not tell: " + err.Error())
	}
	if !p.listed {
		return object.Unknown("the server does not list uploads by their folder")
	}
	old := 0
	for _, upload := range below {
		if time.Since(upload.Modified) > longUnfinished {
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
