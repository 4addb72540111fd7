// Command attack attacks a real keyhatchd in the same way as a hostile container would. It
// prints the effect of each attack on another project and on the operator. The exit code is 1
// if an attack has more effect than its limit allows, or if an attack cannot be run. An attack
// that this machine does not support is skipped.
//
// The command starts its own brokers in temporary directories. If the command runs as root,
// most attackers run as another user than the broker. The attacks affect only this machine,
// and their load is limited.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// An attack describes one kind of attack. The function run returns the number of attempts, and
// a text that describes the effect on others. An error means that the effect was larger than
// the limit, or that the attack failed to run. If this machine does not support the attack, the text
// begins with "skipped: ", and there is no error.
type attack struct {
	name  string
	limit string // the largest allowed effect
	run   func(*setup) (attempts int, noticed string, err error)
}

var attacks = []attack{
	{"pass descriptors", "the broker releases all threads and file descriptors", passDescriptors},
	{"pass files that hang", "the broker releases all threads and file descriptors", passHangingFiles},
	{"leave answers unread", "at most 64 connections with unread answers stay open", leaveAnswersUnread},
	{"move answers into pipes", "the broker's memory grows by at most 16 MiB", moveAnswers},
	{"flood of empty lines", "gets of another project take at most 3 times as long as without the attack", floodEmptyLines},
	{"flood of long requests", "gets of another project take at most 3 times as long as without the attack", floodLongRequests},
	{"flood of connections", "gets of another project take at most 3 times as long as without the attack", floodConnections},
	{"take all descriptors", "another project is served", takeAllDescriptors},
	{"wait, send a byte, leave", "all connections are released", waitAndLeave},
	{"delete and replace the socket", "the socket is back within 2 s", deleteSocket},
	{"block the mounted directory", "other projects and a stop are not delayed", blockDirectory},
	{"lock the mounted directory", "other projects, a stop, and a restart are not delayed", lockDirectoryOf("evil")},
	{"lock the directory before registration", "other projects, a stop, and a restart are not delayed", lockDirectoryOf("late")},
	{"connect with a refused uid", "each client reads its refusal", connectRefused},
	{"fetch all the time", "about one audit event per second", fillAuditLog},
	{"keep the broker from stopping", "a stop takes at most 1.5 s", delayStop},
	{"shut down in a loop", "at most 10% of a processor", shutDown},
	{"abort large answers", "at most 10% of a processor", useProcessor(attackerUID, "abort")},
	{"shut down during an answer", "at most 10% of a processor", useProcessor(attackerUID, "shutdown-blocked")},
	{"shut down the reading side", "at most 10% of a processor", useProcessor(attackerUID, "shutdown-reading")},
	{"send single bytes", "at most 10% of a processor", useProcessor(attackerUID, "bytes")},
	{"send single bytes while limited", "at most 10% of a processor", useProcessor(attackerUID, "bytes-limited")},
	{"send single bytes while waiting", "at most 10% of a processor", useProcessor(attackerUID, "bytes-waiting")},
	{"send single bytes with a refused uid", "at most 10% of a processor", useProcessor(refusedUID, "bytes")},
	{"send lines that are too long", "at most 10% of a processor", useProcessor(attackerUID, "long-lines")},
	{"read an answer slowly", "the broker keeps the answer for at most 3 s", readSlowly},
	{"lock the runtime directory", "the broker starts", lockDirectory},
	{"fill the file system", "the broker restarts, and other projects are served", fillFileSystem},
	{"keep the directory of a used name", "the attacker cannot reach the next project with this name", reuseName},
	{"call from another pid namespace", "the broker decides by the uid, although it cannot see the pid", hiddenPID},
}

// runWithTimeout runs an attack. If the attack does not end in time, runWithTimeout prints the
// stacks of all goroutines of the attacked broker and of this program, and exits.
func runWithTimeout(a attack, s *setup) (attempts int, noticed string, err error) {
	timer := time.AfterFunc(2*time.Minute+s.flood, func() {
		fmt.Fprintln(os.Stderr, a.name+": FAILED: the attack did not end in time")
		if s.printStacks != nil {
			s.printStacks()
		}
		printThreads()
		pprof.Lookup("goroutine").WriteTo(os.Stderr, 2)
		os.Exit(1)
	})
	defer timer.Stop()
	return a.run(s)
}

// printThreads prints the system call and the kernel stack of each thread of all child
// processes. The attackers are child processes.
func printThreads() {
	attackers, _ := filepath.Glob("/proc/self/task/*/children")
	for _, file := range attackers {
		pids, _ := os.ReadFile(file)
		for _, pid := range strings.Fields(string(pids)) {
			threads, _ := filepath.Glob("/proc/" + pid + "/task/*")
			for _, thread := range threads {
				call, _ := os.ReadFile(thread + "/syscall")
				stack, _ := os.ReadFile(thread + "/stack")
				fmt.Fprintf(os.Stderr, "%s: %s%s", thread, call, stack)
			}
		}
	}
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "as-attacker" {
		runAttacker(os.Args[2:])
		return
	}
	s := &setup{}
	only := flag.String("only", "", "run only the attacks whose names contain this `TEXT`")
	flag.StringVar(&s.keyhatchd, "keyhatchd", "bin/keyhatchd", "`PATH` of the keyhatchd program to attack")
	flag.DurationVar(&s.flood, "flood", 10*time.Second, "`DURATION` of each flood")
	flag.BoolVar(&s.small, "small", false, "make fewer attempts, and do not check times and processor time, for an emulated machine")
	flag.Parse()

	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "ATTACK\tATTEMPTS\tNOTICED\tLIMIT\tRESULT")
	failed := 0
	for _, a := range attacks {
		if !strings.Contains(a.name, *only) {
			continue
		}
		attempts, noticed, err := runWithTimeout(a, s)
		for run := 1; run < maxRuns && errors.As(err, new(measurementError)); run++ {
			fmt.Fprintf(os.Stderr, "%s: running the attack again: %v (%s)\n", a.name, err, noticed)
			attempts, noticed, err = runWithTimeout(a, s)
		}
		result := "ok"
		if err != nil {
			result = "FAILED: " + err.Error()
			failed++
		}
		fmt.Fprintf(out, "%s\t%d\t%s\t%s\t%s\n", a.name, attempts, noticed, a.limit, result)
		fmt.Fprintln(os.Stderr, a.name+":", result) // show the progress, because the table is printed at the end
	}
	out.Flush()
	if failed > 0 {
		fmt.Fprintf(os.Stderr, "failed attacks: %d\n", failed)
		os.Exit(1)
	}
}

// runAttacker is the attacker's process of one attack. Its arguments are KIND SOCKET COUNT.
// COUNT is a number of attempts or of seconds, as KIND requires. For the kinds fill and lock,
// SOCKET is a directory, and COUNT is ignored. runAttacker prints the two results of the
// attack, which are usually the number of attempts and the number of successful attempts.
func runAttacker(args []string) {
	kind, socket := args[0], args[1]
	count, err := strconv.Atoi(args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	attempts, succeeded := map[string]func(string, int) (int, int){
		"descriptors": sendDescriptors,
		"fuse":        sendHangingFiles,
		"splice":      moveAnswersIntoPipes,
		"unread":      sendAndDoNotRead,
		"lines":       func(socket string, seconds int) (int, int) { return flood(socket, seconds, strings.Repeat("\n", 4096)) },
		"requests": func(socket string, seconds int) (int, int) {
			return flood(socket, seconds, `{"op":"get-many","names":["A"],"x":"`+strings.Repeat("x", 60<<10)+`"}`+"\n")
		},
		"connects": floodConnects,
		"fill":     fillFiles,
		"lock":     lockInKernel,
		"hold":     holdConnections,
		"wait":     waitSendLeave,
		"refusals": readRefusals,
		"fetch":    fetchAllTheTime,
		"chatty":   beChatty,
		"shutdown": shutDownInLoop,

		"abort":            abortAnswers,
		"shutdown-blocked": shutDownBlockedAnswer,
		"shutdown-reading": shutDownReading,
		"bytes":            sendSingleBytes,
		"bytes-limited":    sendSingleBytesWhileLimited,
		"bytes-waiting":    sendSingleBytesWhileWaiting,
		"long-lines":       sendLongLines,
		"trickle":          readAnswerSlowly,
	}[kind](socket, count)
	fmt.Println(attempts, succeeded)
}
