package memory_test

import (
	"testing"

	"github.com/django-gostorage/django-gostorage/gostorage/internal/memory"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/object"
	"github.com/django-gostorage/django-gostorage/gostorage/internal/storetest"
)

func TestContract(t *testing.T) {
	storetest.Run(t, func(*testing.T) object.Store { return memory.Open() })
}
