// Command attack attacks a real keyhatchd as a hostile container would, and prints the
// effect on another project and on the operator. It exits with 1 if an attack had more
// effect than its limit allows.
//
// It starts its own brokers in a temporary directory. As root, the attackers run as
// another user than the broker. All load stays on this machine and is bounded.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"
)

// An attack returns its number of attempts and its effect on others. An error means that
// the effect was larger than the limit.
type attack struct {
	name  string
	limit string // the largest allowed effect
	run   func(*setup) (attempts int, noticed string, err error)
}

var attacks = []attack{
	{"pass descriptors", "no thread, no descriptor, no delay stays", passDescriptors},
	{"pass files that hang", "no thread, no descriptor, no delay stays", passHangingFiles},
	{"leave answers unread", "at most 2 MiB per project", leaveAnswersUnread},
	{"move answers into pipes", "at most 16 MiB", moveAnswers},
	{"flood of empty lines", "a neighbour's median stays within 3x", floodEmptyLines},
	{"flood of long requests", "a neighbour's median stays within 3x", floodLongRequests},
	{"flood of connections", "a neighbour's median stays within 3x", floodConnections},
	{"take all descriptors", "a neighbour is served", takeAllDescriptors},
	{"wait, send a byte, leave", "no connection stays counted", waitAndLeave},
	{"delete and replace the socket", "it is back within 2 s", deleteSocket},
	{"block the mounted directory", "others and a stop are not delayed", blockDirectory},
	{"connect with a refused uid", "each one reads its refusal", connectRefused},
	{"fetch all the time", "one audit event per second", fillAuditLog},
	{"keep the broker from stopping", "a stop takes at most 1.5 s", delayStop},
	{"shut down in a loop", "at most 10% of a processor", shutDown},
	{"lock the runtime directory", "the broker starts", lockDirectory},
	{"fill the file system", "a restart and other projects work", fillFileSystem},
	{"keep the directory of a used name", "the next project is not reached", reuseName},
	{"call from another pid namespace", "the uid decides", hiddenPID},
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "as-attacker" {
		runAttacker(os.Args[2:])
		return
	}
	s := &setup{}
	only := flag.String("only", "", "run only attacks whose name contains this text")
	flag.StringVar(&s.keyhatchd, "keyhatchd", "bin/keyhatchd", "the broker to attack")
	flag.DurationVar(&s.flood, "flood", 10*time.Second, "how long each flood lasts")
	flag.BoolVar(&s.small, "small", false, "use small counts and measure no latencies, for an emulated machine")
	flag.Parse()

	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "ATTACK\tATTEMPTS\tNOTICED\tLIMIT\tRESULT")
	failed := 0
	for _, a := range attacks {
		if !strings.Contains(a.name, *only) {
			continue
		}
		attempts, noticed, err := a.run(s)
		result := "ok"
		if err != nil {
			result = "FAILED: " + err.Error()
			failed++
		}
		fmt.Fprintf(out, "%s\t%d\t%s\t%s\t%s\n", a.name, attempts, noticed, a.limit, result)
		fmt.Fprintln(os.Stderr, a.name+":", result) // progress
	}
	out.Flush()
	if failed > 0 {
		fmt.Fprintf(os.Stderr, "%d attacks had more effect than allowed\n", failed)
		os.Exit(1)
	}
}
