package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyhatch/keyhatch/manifest"
)

// TestRatesMustBeFinite sets the rates to numbers that Go can parse but that cannot be limits.
// validate must return an error. In a configuration file, applyFile must refuse an infinite rate.
func TestRatesMustBeFinite(t *testing.T) {
	for _, flag := range []string{"--request-rate", "--refusal-rate"} {
		for _, rate := range []string{"NaN", "Inf", "+Inf", "-Inf", "-1"} {
			s := newSettings()
			if err := s.flags.Parse([]string{flag + "=" + rate, "--runtime-dir=/r", "--audit=stdout"}); err != nil {
				t.Fatal(err)
			}
			if err := s.validate(); err == nil || err.Error() != "request-rate and refusal-rate must be finite numbers that are 0 or more" {
				t.Errorf("for %s=%s, the error of validate is %v", flag, rate, err)
			}
		}
	}
	s := newSettings()
	if err := s.applyFile([]byte("request_rate: .inf\n"), "f", map[string]string{}); err == nil || !strings.Contains(err.Error(), "needs a number") {
		t.Errorf("for the setting request_rate: .inf, the error of applyFile is %v", err)
	}
}

func TestInvalidArgumentsExitWithUsageError(t *testing.T) {
	for _, args := range [][]string{
		{"--audit", "nowhere"}, {"--audit", "file:"}, {"--request-rate", "-1"}, {"--no-such-flag"}, {"argument"},
	} {
		cmd := exec.Command(os.Args[0], args...)
		cmd.Env = append(os.Environ(), "KEYHATCH_TEST_AS=keyhatchd")
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), "hint: run keyhatchd --help") {
			t.Errorf("with the arguments %v, keyhatchd exits with %d and prints: %s", args, cmd.ProcessState.ExitCode(), out)
		}
	}
}

// TestSettingsEscapePaths prints the settings with a project's path and a file name that contain
// line breaks and escape sequences. The output must contain both only in escaped form.
func TestSettingsEscapePaths(t *testing.T) {
	dir := t.TempDir()
	text, err := manifest.Declaration{Name: "api", Path: "/src/a\naudit: x\x1b[2J", Manifest: "schema_version: 1\nproject: api\nsecrets: {}\n"}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"api.yaml": string(text), "a\nb.yaml": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s := newSettings()
	s.projectsDir = dir
	var out strings.Builder
	err = s.print(&out, map[string]string{})
	if want := "\n# declared: api, in \"/src/a\\naudit:\\x20x\\x1b[2J\"\n"; !strings.HasSuffix(out.String(), want) {
		t.Errorf("the output is %q, want the end %q", out.String(), want)
	}
	if want := `/a\nb.yaml": the file name must be `; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("the error is %v, want %s", err, want)
	}
}
