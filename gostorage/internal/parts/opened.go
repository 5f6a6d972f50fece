package parts

import (
	"context"
	"iter"
	"sync"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/buffers"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/digest"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
)

// Parts are opened before they are read: a small part costs a round trip, not its bytes.
const (
	openAhead = 8
	// Small parts, as many bytes of them together, are open in a larger number.
	smallAhead, bytesAhead = atOnce, 4 << 20
)

// openPart is a part that was opened as it was described.
type openPart struct {
	info   object.Info
	reader *digest.Reader
	block  []byte
}

func (p *openPart) each(ctx context.Context, give func([]byte) error) error {
	return each(ctx, p.reader, p.block, give)
}

// opened gives the parts one after the other, or the error that kept a part from being opened. Each is open until the
// next. What is expected of a part is verified if the store could not tell.
func opened(ctx context.Context, in object.Store, all []object.Info, wanted []Wanted) iter.Seq2[*openPart, error] {
	type result struct {
		reader *digest.Reader
		err    error
	}
	return func(yield func(*openPart, error) bool) {
		if len(all) == 0 {
			return
		}
		block, err := buffers.Shared.Get()
		if err != nil {
			yield(&openPart{info: all[0]}, err)
			return
		}
		defer buffers.Shared.Put(block)
		ctx, stop := context.WithCancel(ctx)
		lanes := object.Lanes(in, smallAhead)
		defer lanes.End()
		results := make([]chan result, len(all))
		var opening sync.WaitGroup
		next := 0
		ahead := int64(0) // bytes of the parts that are open
		open := func() {
			part, want, into := all[next], wanted[next], make(chan result, 1)
			results[next] = into
			ahead += part.Size
			next++
			opening.Go(func() {
				var r result
				func() {
					defer object.Rescue(&r.err)
					r.reader, r.err = openAs(ctx, in, part, want.Expect.SHA256)
				}()
				into <- r
			})
		}
		at := 0
		defer func() {
			stop()
			opening.Wait()
			for ; at < next; at++ {
				if left := <-results[at]; left.reader != nil {
					_ = left.reader.Close()
				}
				lanes.Leave()
			}
		}()
		for at < len(all) {
			for next < len(all) && (next-at < openAhead || ahead+all[next].Size <= bytesAhead) && lanes.TryEnter() {
				open()
			}
			part := &openPart{info: all[at], block: block.Bytes}
			got := <-results[at]
			results[at] = nil
			ahead -= all[at].Size
			at++
			part.reader = got.reader
			more := yield(part, got.err)
			if got.reader != nil {
				_ = got.reader.Close()
			}
			lanes.Leave()
			if !more {
				return
			}
		}
	}
}
