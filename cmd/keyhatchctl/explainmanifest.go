package main

import (
	"fmt"
	"path/filepath"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/manifest"
	"github.com/keyhatch/keyhatch/schema"
)

// explainDenied returns the finding for a secret that is not on a project's allowlist. The fix
// depends on the manifest m in the project's directory.
func explainDenied(p schema.ProjectStatus, m treeManifest, secret schema.SecretName, o *globalOptions) cli.Finding {
	reload := o.command("reload", string(p.Name))
	if m.parsed != nil && m.parsed.Allows(secret) {
		f := deniedFinding(secret, "to see the changes of the manifest, and to approve them: "+reload)
		f.Detail += ", but the manifest in the project's directory allows this secret"
		return f
	}
	path := m.file.Path
	if path == "" {
		path = manifest.Locations[0]
	}
	return deniedFinding(secret, fmt.Sprintf("add %s under secrets in %s, and approve the change: %s", secret, cli.ShellQuote(filepath.Join(p.ProjectPath, path)), reload))
}

// explainManifest compares the manifest m in a project's directory with the approved manifest. A
// difference does not prevent a get, because the broker uses only the approved manifest.
func explainManifest(p schema.ProjectStatus, m treeManifest, status schema.StatusResponse, o *globalOptions) cli.Finding {
	if f := checkProjectPath(p, status, o); f.Problem != "" {
		return f
	}
	if f := checkManifest(p, m, status, o); f.Problem != "" {
		return f
	}
	return cli.Finding{Detail: "the manifest in the project's directory is the approved manifest"}
}
