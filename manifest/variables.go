package manifest

import (
	"regexp"
	"strings"
)

// variableDanger returns why it is dangerous to set the variable, or "". Some programs
// ignore the case of a name, for example npm and most programs that use a proxy.
// Therefore variableDanger ignores the case of every name.
func variableDanger(name string) string {
	if rule, forbidden := findForbidden(name); forbidden {
		return rule.sentence(name)
	}
	upper := strings.ToUpper(name)
	if rule, ok := findRule(dangerousVariables, upper); ok && !(strings.HasSuffix(rule.pattern, "*") && credentialName.MatchString(upper)) {
		return rule.sentence(name)
	}
	if rule, forbidden := findForbidden(upper); forbidden {
		return "the name differs from the forbidden variable " + rule.pattern + " only in its case"
	}
	return ""
}

// credentialName matches names of variables that usually contain only a part of a credential. A
// rule whose pattern ends in *, for example CARGO_*, does not apply to such a name.
var credentialName = regexp.MustCompile(`_(CREDENTIALS|EMAIL|KEY|PASS|PASSPHRASE|PASSWD|PASSWORD|PAT|PWD|SECRET|TOKENS?|USER|USERNAME)$`)

// findForbidden reports whether the variable is forbidden, and returns its rule.
func findForbidden(name string) (rule variableRule, forbidden bool) {
	rule, ok := findRule(forbiddenVariables, name)
	return rule, ok && rule.use != ordinary
}

// forbiddenVariables are the variables that a manifest can never set. The loader, a shell, an
// interpreter, or keyhatch uses such a variable, before the user's program starts or while
// the program runs. For example, a shell runs the value, loads code from the place that the
// value names, or takes options from the value. A secret is never a sensible value of such a
// variable. The case of a name is significant, because these programs distinguish upper and
// lower case. The table is sorted by pattern.
//
// LD_* is forbidden, and not only the names that the loaders of glibc and musl know. These
// loaders compare whole names, but different versions of a loader know different names, and
// keyhatch does not know the version in a container. LD_*_KEY and LD_*_TOKEN are allowed,
// because LaunchDarkly uses such names, for example LD_SDK_KEY. No known loader has ever used
// a variable with such a name.
//
// The names in the table come from ld.so(8), from the manuals of the programs, and from the
// list of the variables that sudo removes (env_delete in sudoers(5)).
var forbiddenVariables = []variableRule{
	{"BASHOPTS", "bash", obeys},
	{"BASH_ENV", "bash", loads},
	{"BASH_FUNC_*", "bash", runs},
	{"BUNDLER_SETUP", "ruby", loads},
	{"BUN_INSPECT_PRELOAD", "bun", loads},
	{"BUN_OPTIONS", "bun", obeys},
	{"CAMLLIB", "ocaml", loads},
	{"CHEZSCHEMELIBDIRS", "scheme", loads},
	{"CLASSPATH", "java", loads},
	{"CORECLR_ENABLE_PROFILING", "dotnet", obeys},
	{"CORECLR_PROFILER*", "dotnet", loads},
	{"COR_ENABLE_PROFILING", "dotnet", obeys},
	{"COR_PROFILER*", "dotnet", loads},
	{"DOTNET_ADDITIONAL_DEPS", "dotnet", loads},
	{"DOTNET_SHARED_STORE", "dotnet", loads},
	{"DOTNET_STARTUP_HOOKS", "dotnet", loads},
	{"DYLD_*", "the loader", loads},
	{"ELIXIR_ERL_OPTIONS", "elixir", obeys},
	{"ENV", "a shell", loads},
	{"ERL_*FLAGS", "erl", obeys},
	{"ERL_LIBS", "erl", loads},
	{"FPATH", "a shell", loads},
	{"GCONV_PATH", "the C library", loads},
	{"GEM_HOME", "ruby", loads},
	{"GEM_PATH", "ruby", loads},
	{"GLIBC_TUNABLES", "the loader", obeys},
	{"GUILE_LOAD_*", "guile", loads},
	{"HOME", "every shell and interpreter", configures},
	{"IBM_JAVA_OPTIONS", "java", obeys},
	{"IFS", "a shell", obeys},
	{"JAVA_TOOL_OPTIONS", "java", obeys},
	{"JDK_JAVAC_OPTIONS", "javac", obeys},
	{"JDK_JAVA_OPTIONS", "java", obeys},
	{"JULIA_DEPOT_PATH", "julia", loads},
	{"JULIA_LOAD_PATH", "julia", loads},
	{"KEYHATCH_*", "keyhatch", obeys},
	{"LD_*", "the loader", loads},
	{"LD_*_KEY", "", ordinary},
	{"LD_*_TOKEN", "", ordinary},
	{"LUA_CPATH*", "lua", loads},
	{"LUA_INIT*", "lua", runs},
	{"LUA_PATH*", "lua", loads},
	{"MONO_ENV_OPTIONS", "mono", obeys},
	{"MONO_PATH", "mono", loads},
	{"NIX_LD", "the loader", loads},
	{"NIX_LD_LIBRARY_PATH", "the loader", loads},
	{"NODE_OPTIONS", "node", obeys},
	{"NODE_PATH", "node", loads},
	{"NODE_REPL_EXTERNAL_MODULE", "node", loads},
	{"NULLCMD", "zsh", runs},
	{"OCAMLLIB", "ocaml", loads},
	{"OCTAVE_*INITFILE", "octave", loads},
	{"OPENJ9_JAVA_OPTIONS", "java", obeys},
	{"PATH", "every shell", finds},
	{"PERL5DB", "perl", runs},
	{"PERL5LIB", "perl", loads},
	{"PERL5OPT", "perl", obeys},
	{"PERLLIB", "perl", loads},
	{"PHPRC", "php", configures},
	{"PHP_INI_SCAN_DIR", "php", configures},
	{"PROMPT", "zsh", runs},
	{"PROMPT2", "zsh", runs},
	{"PROMPT3", "zsh", runs},
	{"PROMPT4", "zsh", runs},
	{"PROMPT_COMMAND", "bash", runs},
	{"PS0", "a shell", runs},
	{"PS1", "a shell", runs},
	{"PS2", "a shell", runs},
	{"PS4", "a shell", runs},
	{"PSModulePath", "pwsh", loads},
	{"PYTHONBREAKPOINT", "python", loads},
	{"PYTHONHOME", "python", loads},
	{"PYTHONINSPECT", "python", obeys},
	{"PYTHONPATH", "python", loads},
	{"PYTHONPLATLIBDIR", "python", loads},
	{"PYTHONPYCACHEPREFIX", "python", loads},
	{"PYTHONSTARTUP", "python", loads},
	{"PYTHONUSERBASE", "python", loads},
	{"PYTHONWARNINGS", "python", loads},
	{"PYTHON_PRESITE", "python", loads},
	{"READNULLCMD", "zsh", runs},
	{"RPROMPT", "zsh", runs},
	{"RPROMPT2", "zsh", runs},
	{"RPS1", "zsh", runs},
	{"RPS2", "zsh", runs},
	{"RUBYGEMS_GEMDEPS", "ruby", loads},
	{"RUBYLIB", "ruby", loads},
	{"RUBYOPT", "ruby", obeys},
	{"R_DEFAULT_PACKAGES", "R", loads},
	{"R_ENVIRON", "R", configures},
	{"R_ENVIRON_USER", "R", configures},
	{"R_HOME", "R", loads},
	{"R_LIBS", "R", loads},
	{"R_LIBS_SITE", "R", loads},
	{"R_LIBS_USER", "R", loads},
	{"R_PROFILE", "R", loads},
	{"R_PROFILE_USER", "R", loads},
	{"R_TESTS", "R", loads},
	{"SHELLOPTS", "bash", obeys},
	{"TCLLIBPATH", "tclsh", loads},
	{"TCL_LIBRARY", "tclsh", loads},
	{"XONSHRC", "xonsh", loads},
	{"ZDOTDIR", "zsh", loads},
	{"_JAVA_OPTIONS", "java", obeys},
}
