# secret_file_ PATH VARIABLE MODE OWNER GROUP. The secret goes from the shell's own memory into the file, and into no other.
secret_file_() {
  hidden=yes
  put_file "$1" "$3" "$4" "$5" print_secret "$2"
  code=$?
  hidden=
  return "$code"
}

# printf is the shell's own: it has no arguments that anybody could see.
print_secret() { eval "printf \"\$$1\""; }
