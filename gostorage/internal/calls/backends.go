package calls

import (
	"context"
	"encoding/json"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/local"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/memory"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/s3"
)

// backends make a store of each kind from its configuration in JSON.
var backends = map[string]func([]byte) (object.Store, error){
	"memory": func([]byte) (object.Store, error) { return memory.Open(), nil },
	"local": func(text []byte) (object.Store, error) {
		config, err := configuration[local.Config](text)
		return local.Open(config), err
	},
	"s3": func(text []byte) (object.Store, error) {
		config, err := configuration[s3.Config](text)
		if err != nil {
			return nil, err
		}
		return s3.Open(config)
	},
}

func configuration[Config any](text []byte) (config Config, err error) {
	if json.Unmarshal(text, &config) != nil {
		err = object.Errorf(object.Config, "the configuration of a store is not understood")
	}
	return config, err
}

// Open makes a store from its configuration in JSON. A store that is open under this number stays.
func (t *Table) Open(id int64, config string) error {
	var kind struct {
		Backend string `json:"backend"`
	}
	if err := json.Unmarshal([]byte(config), &kind); err != nil {
		return object.Errorf(object.Config, "the configuration of a store is not understood")
	}
	open, ok := backends[kind.Backend]
	if !ok {
		return object.Errorf(object.Config, "there is no store of the kind %q", kind.Backend)
	}
	made, err := open([]byte(config))
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.stores[id]; ok {
		return made.Close()
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	opened := faulty(made)
	_, yields := opened.(object.Yielding)
	t.stores[id] = &store{Store: opened, yields: yields, ctx: ctx, cancel: cancel}
	return nil
}
