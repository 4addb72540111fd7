package cmd_test

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestKeyhatchIsSmallAndStatic builds keyhatch like a release. The binary must be static, smaller
// than 6 MiB, and without code for the admin socket. The size is important because every
// container contains the binary or mounts it.
func TestKeyhatchIsSmallAndStatic(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "keyhatch")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "./keyhatch")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	info, err := os.Stat(binary)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() >= 6<<20 {
		t.Errorf("the binary has %d bytes", info.Size())
	}
	file, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, segment := range file.Progs {
		if segment.Type == elf.PT_INTERP || segment.Type == elf.PT_DYNAMIC {
			t.Error("the binary is not static")
		}
	}
	const adminSymbol = "/broker/client.(*Admin)"
	if hasSymbol(t, "keyhatch", adminSymbol) {
		t.Error("the binary contains code for the admin socket")
	}
	if !hasSymbol(t, "keyhatchctl", adminSymbol) || !hasSymbol(t, "keyhatch", "/broker/client.(*Project)") {
		t.Error("hasSymbol does not find symbols that exist")
	}
}

// hasSymbol reports whether a command has a symbol whose name contains substr.
func hasSymbol(t *testing.T, command, substr string) bool {
	t.Helper()
	file, err := elf.Open(filepath.Join(binDir, command))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	symbols, err := file.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, symbol := range symbols {
		if strings.Contains(symbol.Name, substr) {
			return true
		}
	}
	return false
}
