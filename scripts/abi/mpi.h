/*
 * Stands in for mpi.h where rsmpi is built against the MPI 5 standard ABI: mpi_abi.h, what mpi-sys 0.2.4 wants of an
 * mpi.h beyond it, and the one constant on which libraries disagree. scripts/abi/mpicc has this folder searched first.
 */
#ifndef OFFSHOOT_ABI_MPI_H
#define OFFSHOOT_ABI_MPI_H

#include <mpi_abi.h>

/*
 * The ABI leaves Fortran out, so its header has neither MPI_Fint nor MPI_*_c2f and MPI_*_f2c. Its MPI_*_toint and
 * MPI_*_fromint are the same conversions, for an INTEGER of the size of a C int: that of every Fortran, unless a
 * compiler is told otherwise.
 */
typedef int MPI_Fint;

#define MPI_Comm_c2f MPI_Comm_toint
#define MPI_Comm_f2c MPI_Comm_fromint
#define MPI_Errhandler_c2f MPI_Errhandler_toint
#define MPI_Errhandler_f2c MPI_Errhandler_fromint
#define MPI_File_c2f MPI_File_toint
#define MPI_File_f2c MPI_File_fromint
#define MPI_Group_c2f MPI_Group_toint
#define MPI_Group_f2c MPI_Group_fromint
#define MPI_Info_c2f MPI_Info_toint
#define MPI_Info_f2c MPI_Info_fromint
#define MPI_Message_c2f MPI_Message_toint
#define MPI_Message_f2c MPI_Message_fromint
#define MPI_Op_c2f MPI_Op_toint
#define MPI_Op_f2c MPI_Op_fromint
#define MPI_Request_c2f MPI_Request_toint
#define MPI_Request_f2c MPI_Request_fromint
#define MPI_Type_c2f MPI_Type_toint
#define MPI_Type_f2c MPI_Type_fromint
#define MPI_Win_c2f MPI_Win_toint
#define MPI_Win_f2c MPI_Win_fromint

/*
 * Has errors returned, with the value of MPI_ERRORS_RETURN that the loaded library means, not the one of the header.
 *
 * The ABI's reference header exchanged MPI_ERRORS_RETURN and MPI_ERRORS_ABORT in October 2025 (mpi-abi-stubs, commit
 * 4fa63fa). MPICH 5.0.2 has the new values; Intel MPI, up to 2021.19.0 at least, the old ones: there, what was to
 * return errors would abort the process. The library says which it means, since MPI_ERRORS_RETURN is the default for
 * files (MPI-5.0, chapter on I/O, error handling). That a definition here comes before the library's is what the
 * profiling interface is for; it is weak because each C file that includes it has one.
 */
__attribute__((weak)) int MPI_Comm_set_errhandler(MPI_Comm comm, MPI_Errhandler errhandler) {
    MPI_Errhandler returning;
    if (errhandler == MPI_ERRORS_RETURN && PMPI_File_get_errhandler(MPI_FILE_NULL, &returning) == MPI_SUCCESS &&
        returning == MPI_ERRORS_ABORT) {
        errhandler = returning;
    }
    return PMPI_Comm_set_errhandler(comm, errhandler);
}

#endif
