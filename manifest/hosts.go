package manifest

import (
	"regexp"
	"slices"
	"strings"

	"github.com/keyhatch/keyhatch/schema"
)

// NewHosts returns the servers that can get a credential because of the manifest new, but not
// because of the manifest old. logins contains the helper and the host of each login for git
// or docker that new adds or changes. inFiles contains each host in a template of a known file
// for credentials, with the path of the file, if old has no template with the same host for
// the same path. If old is nil, NewHosts returns all hosts of new. An operator should see
// these hosts before the approval, even if the list of changes is too long for the screen. A
// template can contain words that look like hosts, for example an email address, so inFiles
// can also contain words that are not hosts.
func NewHosts(old, new *Manifest) (logins, inFiles []string) {
	before := map[string]bool{}
	for _, effect := range effectsOf(old) {
		before[effect.Subject+"\n"+effect.Text] = true
	}
	for _, effect := range effectsOf(new) {
		helper, host, isLogin := strings.Cut(effect.Subject, " login ")
		if isLogin && !before[effect.Subject+"\n"+effect.Text] {
			logins = append(logins, helper+" "+host)
		}
	}
	known := map[string]bool{}
	if old != nil {
		for name := range old.Injections() {
			for _, host := range fileHosts(old.Injection(name)) {
				known[host] = true
			}
		}
	}
	for name := range new.Injections() {
		inFiles = append(inFiles, slices.DeleteFunc(fileHosts(new.Injection(name)), func(host string) bool { return known[host] })...)
	}
	slices.Sort(logins)
	slices.Sort(inFiles)
	return logins, slices.Compact(inFiles)
}

// hostPatterns match hosts in templates. If a pattern has a group, the text in the group is
// the host. Otherwise the whole match is the host.
var hostPatterns = []*regexp.Regexp{
	regexp.MustCompile(`//(?:[^\s/"'@]*@)?([\w.-]+(?::\d+)?)`),
	regexp.MustCompile(`(?:^|[^\w.-])([\w-]+(?:\.[\w-]+)+(?::\d+)?)`),
	regexp.MustCompile(`(?:^|[^\w.-])([\w-]+:\d+)`),
	regexp.MustCompile(`(?m)^\s*([\w-]+):\*:`),
	regexp.MustCompile(`\[[0-9a-f:.]*:[0-9a-f:.]*\](?::\d+)?`),
	regexp.MustCompile(`machine\s+(\S+)`),
	regexp.MustCompile(`(?:host|server)["']?\s*[=:]\s*["']?([\w-]+)(?:["',}\s]|$)`),
}

// fileHosts returns each host in the template of a known file for credentials, with the path
// of the file. For any other injection, it returns nil: a template with a host in any other
// file is marked as dangerous anyway, unless the host is only in a comment.
func fileHosts(in schema.Injection) (hosts []string) {
	if in.As != schema.InjectAsFile {
		return nil
	}
	if _, ok := findOrdinaryFile(pathElements(in.Path)); !ok {
		return nil
	}
	text := strings.ToLower(withoutPlaceholders(in.Template))
	for _, pattern := range hostPatterns {
		for _, match := range pattern.FindAllStringSubmatch(text, -1) {
			hosts = append(hosts, QuoteWord(match[len(match)-1])+" in "+QuoteWord(in.Path))
		}
	}
	return hosts
}
