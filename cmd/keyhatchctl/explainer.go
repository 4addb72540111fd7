package main

import (
	"fmt"

	"github.com/keyhatch/keyhatch/cmd/internal/cli"
	"github.com/keyhatch/keyhatch/schema"
)

// An explainer turns the results of the broker's checks of a get into findings with fixes. If the
// broker would refuse the get with an error code, the problem of the finding is this code.
type explainer struct {
	o       *globalOptions
	project schema.ProjectStatus
	status  schema.StatusResponse
	secret  schema.SecretName
	uid     uint32
	again   string // the command that explains the same get again

	denied, manifest cli.Finding // the results of treeReader.explainManifest
}

func (x explainer) checkServed(r schema.ExplainResponse) cli.Finding {
	if r.Unserved { // the broker stopped serving the project after findProject found it
		return cli.Finding{Problem: problemNotServed, Detail: "the broker cannot serve project " + string(x.project.Name),
			Fix: "find the cause and the fix: " + x.o.command("doctor")}
	}
	return cli.Finding{Detail: fmt.Sprintf("project %s is registered at %s", x.project.Name, cli.PrintableWord(x.project.ProjectPath))}
}

func (x explainer) checkSocket(r schema.ExplainResponse) cli.Finding {
	if r.SocketModeChanged {
		return cli.Finding{Problem: problemSocketMode,
			Detail: "the mode of " + cli.PrintableWord(x.project.SocketPath) + " was changed, so that not every process can connect; the broker creates a removed socket again within a minute",
			Fix:    "remove the socket: " + cli.SudoToActAs(0) + cli.QuoteWords([]string{"rm", x.project.SocketPath})}
	}
	if r.SocketInPlace {
		return cli.Finding{Detail: "the socket is in place at " + cli.PrintableWord(x.project.SocketPath)}
	}
	return cli.Finding{Problem: problemSocketMissing,
		Detail: cli.PrintableWord(x.project.SocketPath) + " was removed or replaced, probably by the container; the broker creates the socket again within a minute",
		Fix:    "wait a minute, and check again: " + x.again + "\nif the socket is still not in place, find the cause and the fix: " + x.o.command("doctor")}
}

func (x explainer) checkUID(r schema.ExplainResponse) cli.Finding {
	if r.UIDAllowed {
		return cli.Finding{Detail: fmt.Sprintf("uid %d is allowed to use the socket", x.uid)}
	}
	f := cli.Finding{Problem: string(schema.CodePeerUnexpected), Detail: fmt.Sprintf("uid %d is not allowed to use the socket", x.uid)}
	if x.uid == schema.UnmappedUID {
		f.Detail += ", because the kernel reports this uid for every unknown user"
		f.Fix = "get the secret as another user"
		return f
	}
	f.Fix = "to allow this uid: " + x.o.registerCommand(x.project.ProjectPath, registerOptions{uids: []uint{uint(x.uid)}, persist: x.project.Declared}, x.status)
	return f
}

func (x explainer) checkAllowlist(r schema.ExplainResponse) cli.Finding {
	if r.SecretAllowed {
		return cli.Finding{Detail: fmt.Sprintf("%s is on the allowlist of the approved manifest", x.secret)}
	}
	return x.denied
}

func (x explainer) checkLoaded(r schema.ExplainResponse) cli.Finding {
	if r.SecretsLoaded {
		return cli.Finding{Detail: "the broker has secrets"}
	}
	cause, fix := x.o.noSecretsText(x.status)
	return cli.Finding{Problem: string(schema.CodeNotLoaded), Detail: "the broker has no secrets: " + cause, Fix: fix}
}

func (x explainer) checkPresent(r schema.ExplainResponse) cli.Finding {
	if r.SecretPresent {
		return cli.Finding{Detail: fmt.Sprintf("the broker has the secret %s", x.secret)}
	}
	return cli.Finding{Problem: string(schema.CodeNotFound), Detail: fmt.Sprintf("the broker has no secret named %s", x.secret),
		Fix: "list the names of the secrets that the broker has: " + x.o.command("list") +
			"\nstore the secret: " + cli.QuoteWords([]string{"keyhatch-sidecar", "set", string(x.secret), "--store", "STORE"})}
}

func (x explainer) checkConnections(r schema.ExplainResponse) cli.Finding {
	if !r.TooManyConnections {
		return cli.Finding{Detail: fmt.Sprintf("the socket has %s, and the limit is %d", cli.Plural(x.project.Connections, "connection"), schema.MaxProjectConnections)}
	}
	return cli.Finding{Problem: string(schema.CodeRateLimited), Detail: fmt.Sprintf("the socket already has %d connections, which is the limit", schema.MaxProjectConnections),
		Fix: "end the processes in the project's containers that do not close their connections"}
}

func (x explainer) checkAudit(r schema.ExplainResponse) cli.Finding {
	if !r.AuditUnavailable {
		return cli.Finding{Detail: "the audit log does not prevent the get"}
	}
	return cli.Finding{Problem: string(schema.CodeAuditUnavailable), Detail: "the broker requires audit (--audit-required), but cannot write an audit event",
		Fix: "find the cause in the broker's log, correct the cause (for example, free space on the disk), and check again: " + x.again}
}

func (x explainer) checkRateLimit(r schema.ExplainResponse) cli.Finding {
	if r.RetryAfterSeconds == 0 {
		return cli.Finding{Detail: "the project is below its request limit"}
	}
	return cli.Finding{Problem: string(schema.CodeRateLimited), Detail: "the project's containers send too many requests",
		Fix: fmt.Sprintf("wait %s, and check again: %s", cli.Plural(r.RetryAfterSeconds, "second"), x.again)}
}
