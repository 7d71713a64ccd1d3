/* Answers as llama.cpp's programs do. */
#include <stdio.h>
#include <string.h>

const char *rpc_registration(void);

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--version") == 0) {
        printf("version: 0.0.0-fake (build %d, commit %s)\n", BUILD, COMMIT);
        printf("built with a test\n");
        return 0;
    }
    printf("usage: %s [options]\n  --rpc SERVERS  (%s)\n", NAME, rpc_registration());
    return 0;
}
