package store

import (
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/keyhatch/keyhatch/schema"
)

// fieldsOf returns the sorted names of the fields of the bundle aws.
func fieldsOf(r *Reading) (names []schema.SecretName) {
	for name := range r.Set["aws"].Fields {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// TestReplacedBundleKeepsMissingFields replaces the target of a linked bundle by a directory without some
// of the fields, as if a file system was unmounted. The bundle must keep all old fields until no field is
// missing or the owner confirms the removal. If the directory was not replaced, or if the complete bundle
// was removed, a removal must take effect immediately.
func TestReplacedBundleKeepsMissingFields(t *testing.T) {
	dir := Dir{Path: t.TempDir()}
	other := t.TempDir()
	bundle := other + "/target" // the directory that is replaced
	if err := os.Symlink(bundle, dir.Path+"/aws"); err != nil {
		t.Fatal(err)
	}
	steps := 0
	replace := func(fields ...string) {
		t.Helper()
		steps++
		if err := os.Rename(bundle, other+"/old"+string(rune('0'+steps))); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if err := os.Mkdir(bundle, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, field := range fields {
			writeAll(t, bundle+"/"+field, "new")
		}
	}
	var r *Reading
	check := func(step string, isReplaced bool, want ...schema.SecretName) {
		t.Helper()
		next, err := read(t, dir, r)
		if err != nil {
			t.Fatal(err)
		}
		r = next
		if got := fieldsOf(r); !slices.Equal(got, want) || r.HasReplaced() != isReplaced {
			t.Fatalf("%s: the bundle has the fields %v and is replaced: %t; want %v and %t", step, got, r.HasReplaced(), want, isReplaced)
		}
	}
	replace("id", "key")
	writeAll(t, dir.Path+"/A", "1")
	check("first read", false, "id", "key")
	replace()
	check("empty directory", true, "id", "key")
	check("empty directory again", true, "id", "key")
	writeAll(t, bundle+"/id", "new")
	check("one field is missing", true, "id", "key")
	writeAll(t, bundle+"/key", "new")
	check("complete again", false, "id", "key")
	os.Remove(bundle + "/key")
	check("a removed field", false, "id")
	replace("key", "id")
	check("a complete replacement", false, "id", "key")
	replace("key")
	check("incomplete replacement", true, "id", "key")
	r.State = r.AcceptReplaced(false)
	check("confirmed", false, "key")
	replace()
	check("empty directory before another file becomes unusable", true, "key")
	writeAll(t, dir.Path+"/A", "")
	check("another file is unusable", true, "key")
	writeAll(t, bundle+"/key", "")
	check("the field is unusable", false, "key")
	os.Remove(bundle + "/key")
	check("the directory is still not complete", true, "key")
	os.RemoveAll(dir.Path + "/aws")
	check("a removed bundle", false)
}

// TestEditsBetweenReadsTakeEffect removes a field, and sets the rest of the bundle, which replaces the
// bundle's directory. The next read must use the new bundle, because both edits succeeded.
func TestEditsBetweenReadsTakeEffect(t *testing.T) {
	dir := Dir{Path: t.TempDir()}
	writeAll(t, dir.Path+"/A", "1")
	setBundle := func(fields map[string][]byte) {
		t.Helper()
		if err := dir.SetBundle(t.Context(), "aws", fields); err != nil {
			t.Fatal(err)
		}
	}
	setBundle(map[string][]byte{"id": []byte("old"), "key": []byte("old")})
	r, err := read(t, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := dir.Remove(t.Context(), "aws/id"); err != nil {
		t.Fatal(err)
	}
	setBundle(map[string][]byte{"key": []byte("new")})
	r, err = read(t, dir, r)
	if err != nil || r.HasReplaced() || len(fieldsOf(r)) != 1 || string(r.Set["aws"].Fields["key"]) != "new" {
		t.Errorf("after the edits, the bundle has the fields %v and is replaced: %t; error %v", fieldsOf(r), r.HasReplaced(), err)
	}
}

// TestLinkedBundleCanBecomeDirectory removes a linked bundle, and sets a bundle with fewer fields. The next read
// must use the new bundle, because only a change of the store can replace the link by a directory. If the
// directory of the store has also been replaced, as by a mount, the bundle must keep its old fields.
func TestLinkedBundleCanBecomeDirectory(t *testing.T) {
	for _, replaceStore := range []bool{false, true} {
		dir, target := Dir{Path: t.TempDir() + "/store"}, t.TempDir()
		writeFiles(t, dir.Path+"/A", "1", target+"/id", "old", target+"/key", "old")
		if err := os.Symlink(target, dir.Path+"/aws"); err != nil {
			t.Fatal(err)
		}
		r, err := read(t, dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		if replaceStore {
			if err := os.Rename(dir.Path, dir.Path+".old"); err != nil {
				t.Fatal(err)
			}
			writeFiles(t, dir.Path+"/A", "1", dir.Path+"/aws/key", "new")
		} else if err := errors.Join(dir.Remove(t.Context(), "aws"), dir.SetBundle(t.Context(), "aws", map[string][]byte{"key": []byte("new")})); err != nil {
			t.Fatal(err)
		}
		want := "new"
		if replaceStore {
			want = "old"
		}
		for range 2 {
			r, err = read(t, dir, r)
			if err != nil || r.HasReplaced() != replaceStore || string(r.Set["aws"].Fields["key"]) != want {
				t.Fatalf("store replaced: %t: the bundle is replaced: %t, and has the fields %v; error %v", replaceStore, r.HasReplaced(), r.Set["aws"].Fields, err)
			}
		}
	}
}

// TestBundleBehindDataLinkCanLoseFields replaces the link ..data of a volume of Kubernetes in which a
// bundle is a link to a directory behind ..data. The removal of a field must take effect without a
// confirmation, because each update of the volume creates new directories.
func TestBundleBehindDataLinkCanLoseFields(t *testing.T) {
	dir := Dir{Path: t.TempDir()}
	update := func(version string, fields ...string) {
		if err := os.MkdirAll(dir.Path+"/.."+version+"/aws", 0o700); err != nil {
			t.Fatal(err)
		}
		for _, field := range fields {
			writeAll(t, dir.Path+"/.."+version+"/aws/"+field, "new")
		}
		if err := os.Symlink(".."+version, dir.Path+"/..next"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(dir.Path+"/..next", dir.Path+"/..data"); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("..data/aws", dir.Path+"/aws"); err != nil {
		t.Fatal(err)
	}
	update("1", "id", "key")
	r, err := read(t, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	update("2", "id")
	if r, err = read(t, dir, r); err != nil || r.HasReplaced() || len(fieldsOf(r)) != 1 {
		t.Errorf("after the update, the bundle has the fields %v and is replaced: %t; error %v", fieldsOf(r), r.HasReplaced(), err)
	}
}

// TestReplacedBundleDuringRead checks that a read is repeated if the directory of an empty bundle is replaced
// between the two listings of the read.
func TestReplacedBundleDuringRead(t *testing.T) {
	before := listing{bundles: map[string]string{"/s/aws": "1"}}
	after := listing{bundles: map[string]string{"/s/aws": "2"}}
	if sameFiles(before, after, newReading()) || !sameFiles(before, before, newReading()) {
		t.Error("sameFiles does not compare the directories of bundles")
	}
}

// TestBundleThatIsAlsoStore reads a store and, as a second store, the directory of one of its bundles.
// A removed field must take effect immediately, because the directory was not replaced.
func TestBundleThatIsAlsoStore(t *testing.T) {
	outer := Dir{Path: t.TempDir()}
	inner := Dir{Path: outer.Path + "/aws"}
	if err := os.Mkdir(inner.Path, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, stores := range []Merged{{outer, inner}, {inner, outer}} {
		writeAll(t, inner.Path+"/id", "1")
		writeAll(t, inner.Path+"/key", "1")
		r, err := read(t, stores, nil)
		if err != nil {
			t.Fatal(err)
		}
		os.Remove(inner.Path + "/id")
		if r, err = read(t, stores, r); err != nil || r.HasReplaced() || len(fieldsOf(r)) != 1 {
			t.Errorf("the bundle has the fields %v, the problems are %v, error %v", fieldsOf(r), r.Unusable, err)
		}
	}
}
