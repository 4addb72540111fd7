package main

import (
	"bytes"
	"os"
	"testing"
)

func TestCommittedFilesAreUpToDate(t *testing.T) {
	t.Chdir("..") // go generate also runs the generator in schema
	documents, err := Documents()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range documents {
		got, err := os.ReadFile(name)
		if err != nil {
			t.Errorf("cannot read a generated file: %v: run make generate", err)
			continue
		}
		if !bytes.Equal(got, want) {
			t.Errorf("schema/%s is out of date: run make generate", name)
		}
	}
}

func TestOutputIsDeterministic(t *testing.T) {
	t.Chdir("..")
	first, err := Documents()
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		again, err := Documents()
		if err != nil {
			t.Fatal(err)
		}
		for name := range first {
			if !bytes.Equal(first[name], again[name]) {
				t.Errorf("%s differs between two runs", name)
			}
		}
	}
}

func TestGenerationFailsOutsideSchemaDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	if _, err := Documents(); err == nil {
		t.Error("Documents succeeded in a directory without the source of package schema")
	}
}
