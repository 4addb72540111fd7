package main

import (
	"fmt"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
)

// These are the problems that doctor and explain can report, in addition to the problems in the
// broker's status and to error codes.
const (
	problemNoPermission    = "no_permission"
	problemBrokerDown      = "broker_down"
	problemProtocolSkew    = "protocol_skew"
	problemVersionSkew     = "version_skew"
	problemRefused         = "refused"
	problemMemoryUnlocked  = "memory_unlocked"
	problemNothingLoaded   = "nothing_loaded"
	problemSidecarMissing  = "sidecar_missing"
	problemSidecarRefused  = "sidecar_refused"
	problemStore           = "store_problem"
	problemPathGone        = "path_gone"
	problemPathReplaced    = "path_replaced"
	problemOwnerNotAllowed = "owner_not_allowed"
	problemSecretsMissing  = "secrets_missing"
	problemManifestChanged = "manifest_changed"
	problemManifestInvalid = "manifest_invalid"
	problemSocketMissing   = "socket_missing"
	problemSocketMode      = "socket_mode"
	problemSocketReplaced  = "socket_replaced"
	problemNotServed       = "not_served"
	problemLinkMissing     = "link_missing"
	problemMadeByEngine    = "made_by_engine"

	problemDirectoryBlocked = "directory_blocked"
)

// devcontainersDir is the directory of the links for dev containers, in the runtime directory.
const devcontainersDir = "devcontainers"

// deniedFinding returns the finding for a secret that is not on a project's allowlist.
func deniedFinding(secret schema.SecretName, fix string) cli.Finding {
	return cli.Finding{Problem: string(schema.CodeDenied), Detail: fmt.Sprintf("%s is not on the allowlist of the approved manifest", secret), Fix: fix}
}
