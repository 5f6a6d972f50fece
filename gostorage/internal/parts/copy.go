package parts

import (
	"context"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/digest"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// Copy makes an object of another one in the same store, with its content type and metadata. It is an assembly of one
// part. A copy to the key itself changes nothing.
func Copy(ctx context.Context, in object.Store, from Wanted, key string, overwrite bool) (object.Info, error) {
	info, err := in.Stat(ctx, from.Key)
	if err == nil && !from.fits(info) {
		err = errChanged
	}
	if err == nil && key == from.Key {
		return summed(ctx, in, from, info)
	}
	if err != nil {
		return object.Info{}, named(from.Key, err)
	}
	return onto(ctx, in, from, info, key, overwrite)
}

func onto(ctx context.Context, in object.Store, from Wanted, info object.Info, key string, overwrite bool) (object.Info, error) {
	work := &Assembly{
		Final: in, Temp: in, Key: key, Parts: []Wanted{from}, Expect: from.Expect,
		Options: object.PutOptions{Overwrite: overwrite, ContentType: info.ContentType, Metadata: info.Metadata},
		Commit:  func(ctx context.Context) error { return context.Cause(ctx) },
	}
	return work.of(ctx, []object.Info{info})
}

// summed gives an object with its digest. It is read if the store does not know it.
func summed(ctx context.Context, in object.Store, of Wanted, info object.Info) (object.Info, error) {
	if info.SHA256 != "" {
		return info, nil
	}
	return read(ctx, in, of)
}

// read reads an object, and gives it with the digest of its bytes. They must be what is expected and what the store knows
// of them.
func read(ctx context.Context, in object.Store, of Wanted) (object.Info, error) {
	opened, err := Open(ctx, in, of, object.Whole)
	if err != nil {
		return object.Info{}, err
	}
	defer func() { _ = opened.Close() }()
	info := opened.Info()
	info.SHA256, err = digest.SHA256(ctx, opened)
	return info, err
}

// Adopt reads an object that came another way, and stores its SHA-256 with it, if the store can. An object that has a
// digest must have its bytes.
func Adopt(ctx context.Context, in object.Store, of Wanted) (object.Info, error) {
	info, err := in.Stat(ctx, of.Key)
	if err == nil && !of.fits(info) {
		err = errChanged
	}
	if err != nil {
		return object.Info{}, err
	}
	if info.SHA256 != "" {
		return read(ctx, in, of)
	}
	adopter, ok := in.(object.Adopter)
	if !ok {
		return onto(ctx, in, of, info, of.Key, true)
	}
	info.SHA256 = of.Expect.SHA256
	return adopter.Adopt(ctx, info)
}
