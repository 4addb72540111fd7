package manifest

import (
	"regexp"
	"slices"
	"strings"

	"github.com/keyhatch/keyhatch/schema"
)

// NewHosts returns the servers to which the manifest new sends a credential, and old does not.
// logins contains the host of each helper's login that is added or changed. inFiles contains each
// new host in a template of a known file for credentials. If old is nil, every host is new. An operator should see each of
// these hosts before the approval, even if the list of changes is too long for the screen. A
// template can contain words that look like hosts, for example an email address, so inFiles
// can contain more than hosts.
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

// hostPatterns match the hosts in templates. The first group is the host, or the whole match.
var hostPatterns = []*regexp.Regexp{
	regexp.MustCompile(`//(?:[^\s/"'@]*@)?([\w.-]+(?::\d+)?)`),
	regexp.MustCompile(`(?:^|[^\w.-])([\w-]+(?:\.[\w-]+)+(?::\d+)?)`),
	regexp.MustCompile(`(?:^|[^\w.-])([\w-]+:\d+)`),
	regexp.MustCompile(`(?m)^\s*([\w-]+):\*:`),
	regexp.MustCompile(`\[[0-9a-f:.]*:[0-9a-f:.]*\](?::\d+)?`),
	regexp.MustCompile(`machine\s+(\S+)`),
	regexp.MustCompile(`(?:host|server)["']?\s*[=:]\s*["']?([\w-]+)["',}\s]`),
}

// fileHosts returns the hosts in the template of a known file for credentials. Other files with
// templates are always dangerous, or contain no hosts.
func fileHosts(in schema.Injection) (hosts []string) {
	if in.As != schema.InjectAsFile {
		return nil
	}
	if _, ok := findOrdinaryFile(strings.Split(strings.ToLower(in.Path), "/")); !ok {
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
