/* Run a command with a terminal as its stderr and stdout, and write to our stdout what came there.
 *   gen_terminal COMMAND ARGUMENT...
 * Gives the command's status. (script of util-linux would do, but stops itself when the command is stopped, and stays so.) */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    char text[4096];
    int status, terminal = posix_openpt(O_RDWR | O_NOCTTY);
    if (argc < 2 || terminal < 0 || grantpt(terminal) != 0 || unlockpt(terminal) != 0)
        return 99;
    pid_t child = fork();
    if (child == 0) {
        int side = open(ptsname(terminal), O_RDWR | O_NOCTTY);
        if (side < 0 || dup2(side, 1) < 0 || dup2(side, 2) < 0)
            _exit(99);
        close(side);
        close(terminal);
        execvp(argv[1], argv + 1);
        _exit(99);
    }
    /* Reading from a terminal that nobody has open is an error only after somebody had it: until then read waits. */
    for (ssize_t n; (n = read(terminal, text, sizeof text)) > 0;)
        fwrite(text, 1, (size_t)n, stdout);
    return child < 0 || waitpid(child, &status, 0) < 0 || !WIFEXITED(status) ? 99 : WEXITSTATUS(status);
}
