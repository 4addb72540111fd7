package cmd_test

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// keyhatch is carried into every container: it is one static binary of at most
// 6 MiB, as it is released, and has no code for the admin socket in it.
func TestKeyhatchIsSmall(t *testing.T) {
	released := filepath.Join(t.TempDir(), "keyhatch")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", released, "./keyhatch")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	info, err := os.Stat(released)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() >= 6<<20 {
		t.Errorf("it has %d bytes", info.Size())
	}
	file, err := elf.Open(released)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, segment := range file.Progs {
		if segment.Type == elf.PT_INTERP || segment.Type == elf.PT_DYNAMIC {
			t.Error("it is not static")
		}
	}
	const admin = "/broker/client.(*Admin)"
	if linked(t, "keyhatch", admin) {
		t.Error("it has code for the admin socket")
	}
	if !linked(t, "keyhatchctl", admin) || !linked(t, "keyhatch", "/broker/client.(*Project)") {
		t.Error("the search finds nothing where there is something")
	}
}

// linked reports whether a command's symbols have one like this.
func linked(t *testing.T, command, like string) bool {
	t.Helper()
	file, err := elf.Open(filepath.Join(bin, command))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	symbols, err := file.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, symbol := range symbols {
		if strings.Contains(symbol.Name, like) {
			return true
		}
	}
	return false
}
