package gostorage

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"
)

// The binding drops or mistreats any other shape of function without a word.
func TestFacadeHoldsOnlyWhatCanBeBound(t *testing.T) {
	files := token.NewFileSet()
	parsed, err := parser.ParseFile(files, "gostorage.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	checker := types.Config{Importer: emptyImporter{}, Error: func(error) {}}
	facade, _ := checker.Check("gostorage", files, []*ast.File{parsed}, nil)
	parameters := []string{"string", "int64", "bool", "float64", "uintptr"}
	count := 0
	for _, name := range facade.Scope().Names() {
		found := facade.Scope().Lookup(name)
		if !found.Exported() {
			continue
		}
		function, ok := found.(*types.Func)
		if !ok {
			t.Errorf("%s is exported and no function", name)
			continue
		}
		count++
		signature := function.Signature()
		if signature.TypeParams().Len() > 0 || signature.Variadic() {
			t.Errorf("%s is generic or variadic", name)
		}
		for parameter := range signature.Params().Variables() {
			if !slices.Contains(parameters, parameter.Type().String()) {
				t.Errorf("%s takes a %s", name, parameter.Type())
			}
		}
		results := signature.Results()
		if results.Len() != 2 || results.At(1).Type().String() != "error" ||
			!slices.Contains(parameters, results.At(0).Type().String()) {
			t.Errorf("%s gives %s", name, results)
		}
	}
	if count != 20 {
		t.Errorf("%d functions are exported", count)
	}
	for _, declared := range parsed.Decls {
		function, ok := declared.(*ast.FuncDecl)
		if !ok || !function.Name.IsExported() {
			continue
		}
		first, ok := function.Body.List[0].(*ast.DeferStmt)
		if !ok || fmt.Sprint(first.Call.Fun) != "guard" {
			t.Errorf("%s is not guarded against panics", function.Name)
		}
		if strings.ContainsAny(function.Doc.Text(), "\\\"`") {
			t.Errorf("%s has a comment that breaks the binding's docstring", function.Name)
		}
	}
}

type emptyImporter struct{}

func (emptyImporter) Import(path string) (*types.Package, error) {
	if path == "unsafe" {
		return types.Unsafe, nil
	}
	return nil, fmt.Errorf("not needed")
}

func TestGuardTurnsAPanicIntoAnError(t *testing.T) {
	burst := func() (_ int64, err error) {
		defer guard("test", &err)
		var nowhere *int64
		return *nowhere, nil
	}
	if _, err := burst(); err == nil || !strings.HasPrefix(err.Error(), "E1|internal|test|") {
		t.Errorf("a panic gives %v", err)
	}
}

func TestCRC32COfPieces(t *testing.T) {
	data := []byte("123456789")
	address := uintptr(unsafe.Pointer(&data[0]))
	first, err := CRC32C(0, address, 4)
	if err != nil {
		t.Fatal(err)
	}
	if value, err := CRC32C(first, address+4, 5); value != 0xe3069283 || err != nil {
		t.Errorf("%x, %v", value, err)
	}
	if _, err := CRC32C(0, 0, 4); err == nil {
		t.Error("there was no memory")
	}
}

// end gives the result of a call that has given an answer.
func end(call int64, text string, err error) (string, error) {
	for strings.HasPrefix(text, "@") && err == nil {
		time.Sleep(time.Millisecond)
		text, err = Wait(call, 0, 0)
	}
	return text, err
}

func TestPutAndGetThroughTheFacade(t *testing.T) {
	const store, put, get = 1, 2, 3
	if _, err := Open(store, `{"backend": "memory"}`); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(store, put, "put", "a/b", "", 0, -1); err != nil {
		t.Fatal(err)
	}
	data := []byte("some bytes")
	if n, err := Write(put, uintptr(unsafe.Pointer(&data[0])), int64(len(data))); n != int64(len(data)) || err != nil {
		t.Fatal(n, err)
	}
	text, err := Finish(put)
	if _, err = end(put, text, err); err != nil {
		t.Fatal(err)
	}
	text, err = Start(store, get, "get", "a/b", "", 0, -1)
	if text, err = end(get, text, err); err != nil || !strings.HasPrefix(text, "10 ") {
		t.Fatal(text, err)
	}
	into := make([]byte, 100)
	n, err := Read(get, 0, uintptr(unsafe.Pointer(&into[0])), 100, 0, 0, 0)
	if err != nil || string(into[:n]) != "some bytes" {
		t.Error(n, err)
	}
	for range 2 {
		if _, err := Cancel(get); err != nil {
			t.Error(err)
		}
		if _, err := Close(store); err != nil {
			t.Error(err)
		}
	}
	if _, err := Start(store, 4, "stat", "a/b", "", 0, -1); err == nil || !strings.HasPrefix(err.Error(), "E1|closed|") {
		t.Errorf("a closed store gives %v", err)
	}
}
