package object

import (
	"context"
	"time"
)

// Finding is one thing that a probe found out about the place of a store. Names are public (storage_doctor --json):
// add, never rename.
type Finding struct {
	Name     string   `json:"name"`
	OK       *bool    `json:"ok"`       // nil: not known
	Required bool     `json:"required"` // an adapter's promises need it: without it something does not work
	Seconds  float64  `json:"seconds"`  // how long it took to find out
	Value    *float64 `json:"value"`    // a figure, where the finding has one
	Detail   string   `json:"detail"`
	Advice   string   `json:"advice"`
}

// Reach is the finding whether a store can be written at all. All others depend on it.
const Reach = "reach"

// Prober is a Store that can examine its place.
type Prober interface {
	// Probe tries what the place can do. It writes below the folder prefix, which ends with a slash, and leaves nothing
	// there. One of the findings is Reach; if Reach is not OK, there are few others. Probe fails only if ctx ends.
	Probe(ctx context.Context, prefix string) ([]Finding, error)
}

// Examine makes a finding and notes the time it takes.
func Examine(name string, required bool, look func() Finding) Finding {
	started := time.Now()
	found := look()
	found.Name, found.Required, found.Seconds = name, required, time.Since(started).Seconds()
	return found
}

// Yes is the finding that something works.
func Yes(detail string) Finding { return Finding{OK: new(true), Detail: detail} }

// No is the finding that something does not work, with what to do.
func No(detail, advice string) Finding {
	return Finding{OK: new(false), Detail: detail, Advice: advice}
}

// Unknown is the finding that it cannot be told whether something works.
func Unknown(detail string) Finding { return Finding{Detail: detail} }

// WithValue adds the figure.
func (f Finding) WithValue(value float64) Finding {
	f.Value = &value
	return f
}
